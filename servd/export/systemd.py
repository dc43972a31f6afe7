"""A unit of systemd that is fitted to a configuration: no right that it does not need, and no place
to write but its own. Pure.

What is not fitted is as in the unit that servd ships, which says why each thing is as it is.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from servd.config.model import Config
from servd.config.service import Service
from servd.plan.model import Plan

_LOWEST = 1024
"""Ports below it want CAP_NET_BIND_SERVICE (ip(7))."""

_BEFORE_THE_DRAIN = 30.0
_DAEMON_BYTES = 256 * 2**20

HARDENING = """\
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome={protect_home}
PrivateTmp=yes
ProtectProc=invisible
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
LockPersonality=yes
RemoveIPC=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
SystemCallArchitectures=native
"""
"""The same in the shipped unit."""

AS_ROOT = (
    "CAP_SETUID", "CAP_SETGID", "CAP_KILL", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_SYS_RESOURCE",
)  # fmt: skip
"""What a daemon needs that runs workers as other users."""


@dataclass(frozen=True, slots=True)
class Installation:
    """Where servd, its interpreter and its configuration are, and whom it runs as."""

    program: tuple[str, ...]
    config: str
    interpreter: str = ""
    user: str = "servd"
    name: str = "servd"


_STORED = 512
"""Listening sockets that systemd keeps while servd is restarted."""


def units(config: Config, plan: Plan, installed: Installation) -> dict[str, str]:
    """The text of each file, by its name: the service, and a socket for each `fd:NAME`."""
    found = {f"{installed.name}.service": _service(config, plan, installed)}
    for name in sorted(_descriptors(config)):
        found[f"{installed.name}-{name}.socket"] = _socket(name, installed)
    return found


def _service(config: Config, plan: Plan, installed: Installation) -> str:
    run = _command([*installed.program, "--config", installed.config])
    reload = _command([*installed.program, "reload", "--config", installed.config])
    as_root = _has_users(config)
    capabilities = _capabilities(config, as_root=as_root)
    sockets = [f"{installed.name}-{name}.socket" for name in sorted(_descriptors(config))]
    lines = [
        "[Unit]",
        f"Description=servd serving daemon, {_literal(installed.config)}",
        "Wants=network-online.target",
        f"After={' '.join(['network-online.target', 'nss-user-lookup.target', *sockets])}",
        *([f"Requires={' '.join(sockets)}"] if sockets else []),
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        "Type=notify",
        "NotifyAccess=main",
        f"ExecStart={run}",
        f"ExecReload={reload}",
        *([f"Sockets={' '.join(sockets)}"] if sockets else []),
        f"User={'root' if as_root else installed.user}",
        *([] if as_root else [f"Group={installed.user}"]),
        "TimeoutStartSec=60",
        f"TimeoutStopSec={_stop_seconds(plan):g}",
        "WatchdogSec=30",
        f"FileDescriptorStoreMax={_STORED}",
        f"Environment=FDSTORE={_STORED}",  # systemd before 254 does not say it itself
        "KillMode=mixed",
        "Restart=on-failure",
        "RestartSec=5",
        "RestartPreventExitStatus=2 78",
        "OOMPolicy=continue",
        "",
        f"RuntimeDirectory={installed.name}",
        "RuntimeDirectoryMode=0711" if as_root else "RuntimeDirectoryMode=0700",
        f"StateDirectory={installed.name}",
        "StateDirectoryMode=0750",
        "UMask=0027",
        f"LimitNOFILE=65536:{_most_files(config)}",
        *_memory(plan),
        *_writable(config, installed),
        "",
        f"AmbientCapabilities={'' if as_root else ' '.join(capabilities)}",
        f"CapabilityBoundingSet={' '.join(capabilities)}",
        HARDENING.format(protect_home=_protect_home(config, plan, installed)).rstrip(),
        *([] if _uses_devices(config, plan) else ["PrivateDevices=yes"]),
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return "\n".join(lines) + "\n"


def _command(arguments: Sequence[str]) -> str:
    """Arguments as a line of a unit (systemd.service(5), COMMAND LINES)."""
    return _literal(shlex.join(arguments)).replace("$", "$$")


def _literal(text: str) -> str:
    """Text in which nothing is a specifier (systemd.unit(5))."""
    return text.replace("%", "%%")


def _socket(name: str, installed: Installation) -> str:
    lines = [
        "[Unit]",
        f'Description=The address of "fd:{name}" of {_literal(installed.config)}',
        "",
        "[Socket]",
        "# what the configuration does not say: where systemd listens",
        "ListenStream=80",
        f"FileDescriptorName={name}",
        f"Service={installed.name}.service",
        "NoDelay=yes",
        "",
        "[Install]",
        "WantedBy=sockets.target",
    ]
    return "\n".join(lines) + "\n"


def _descriptors(config: Config) -> set[str]:
    """The names that systemd has to hand over."""
    return {a.name for s in config.services.values() for a in s.listen if a.kind == "fd"}


def _has_users(config: Config) -> bool:
    return any(service.user or service.group for service in config.services.values())


def _capabilities(config: Config, *, as_root: bool) -> list[str]:
    addresses = [a for s in config.services.values() for a in s.listen]
    addresses += [a for a in (config.admin.listen, config.admin.metrics) if a is not None]
    low = any(a.kind == "tcp" and 0 < a.port < _LOWEST for a in addresses)
    return [*(["CAP_NET_BIND_SERVICE"] if low else []), *(AS_ROOT if as_root else ())]


def _stop_seconds(plan: Plan) -> float:
    """Until the daemon has said how long it needs; what drains longest is in time by itself."""
    return _BEFORE_THE_DRAIN + max((service.drain for service in plan.services), default=0.0)


def _most_files(config: Config) -> int:
    asked = [s.rlimits["nofile"] for s in config.services.values() if "nofile" in s.rlimits]
    return max(524288, *asked) if asked else 524288


def _memory(plan: Plan) -> Iterator[str]:
    """A limit for all together where each service has one: a little above it servd replaces a
    worker, far above it the kernel ends something.
    """
    limits = [s.limits.memory for s in plan.services if s.workers]
    if not limits or any(limit is None for limit in limits):
        return
    # while a service is replaced, old and new workers are there side by side
    total = sum(2 * s.workers * (s.limits.memory or 0) for s in plan.services) + _DAEMON_BYTES
    yield f"MemoryMax={total}"


def _writable(config: Config, installed: Installation) -> Iterator[str]:
    """Folders that the configuration itself has servd write to."""
    found = {
        os.path.dirname(address.path)
        for service in config.services.values()
        for address in service.listen
        if address.kind == "unix"
    }
    if config.admin.listen is not None and config.admin.listen.kind == "unix":
        found.add(os.path.dirname(config.admin.listen.path))
    if config.daemon.log.file:
        found.add(os.path.dirname(os.path.abspath(config.daemon.log.file)))
    if config.daemon.runtime_dir:
        found.add(config.daemon.runtime_dir)
    own = f"/run/{installed.name}"
    outside = sorted(path for path in found if path != own and not path.startswith(f"{own}/"))
    if outside:
        yield f"ReadWritePaths={_literal(shlex.join(outside))}"


def _protect_home(config: Config, plan: Plan, installed: Installation) -> str:
    """Hidden, unless something of it is to be read."""
    paths = [installed.config, *installed.program, installed.interpreter]
    for service in plan.services:
        paths += [service.directory, service.python, *service.command[:1]]
        paths += _files(service.definition)
    homes = ("/home/", "/root/", "/run/user/")
    return "read-only" if any(path.startswith(homes) for path in paths) else "yes"


def _files(service: Service) -> list[str]:
    tls = service.tls
    return [service.env_file, *([tls.certfile, tls.keyfile, tls.ca_certs] if tls else [])]


def _uses_devices(config: Config, plan: Plan) -> bool:
    """Whether GPUs are asked for, which PrivateDevices would hide."""
    return any(s.definition.gpus or (s.part is not None and s.part.gpus) for s in plan.services)
