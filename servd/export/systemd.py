"""Writes a systemd unit with minimal rights; the shipped unit explains the other lines. Pure."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence

from servd.config.model import Config
from servd.core.quick_dataclass import dataclass
from servd.plan.model import Plan

_FIRST_UNPRIVILEGED_PORT = 1024
"""First port that needs no CAP_NET_BIND_SERVICE (ip(7))."""

_BEFORE_DRAIN_SECONDS = 30.0
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
"""As in the shipped unit."""

AS_ROOT = (
    "CAP_SETUID", "CAP_SETGID", "CAP_KILL", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_SYS_RESOURCE",
)  # fmt: skip
"""Capabilities of a daemon that runs workers as other users."""


@dataclass(frozen=True, slots=True)
class Installation:
    """Paths of servd, its interpreter and its configuration, and its user."""

    program: tuple[str, ...]
    config: str
    interpreter: str = ""
    user: str = "servd"
    name: str = "servd"


_STORED_FDS = 512
"""Listening sockets that systemd stores while servd restarts."""


def units(config: Config, plan: Plan, installed: Installation) -> dict[str, str]:
    """Returns the text of each file by name: the service, and a socket for each `fd:NAME`."""
    found = {f"{installed.name}.service": _service(config, plan, installed)}
    for name in sorted(_descriptors(config)):
        found[f"{installed.name}-{name}.socket"] = _socket(name, installed)
    return found


def _service(config: Config, plan: Plan, installed: Installation) -> str:
    sockets = [f"{installed.name}-{name}.socket" for name in sorted(_descriptors(config))]
    as_root = _has_users(config)
    lines = [
        "[Unit]",
        f"Description=servd serving daemon, {_literal(installed.config)}",
        "Wants=network-online.target",
        f"After={' '.join(['network-online.target', 'nss-user-lookup.target', *sockets])}",
        *([f"Requires={' '.join(sockets)}"] if sockets else []),
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        *_process(config, plan, installed, sockets, as_root=as_root),
        "",
        f"RuntimeDirectory={installed.name}",
        "RuntimeDirectoryMode=0711" if as_root else "RuntimeDirectoryMode=0700",
        f"StateDirectory={installed.name}",
        "StateDirectoryMode=0750",
        "UMask=0027",
        f"LimitNOFILE=65536:{_max_files(config)}",
        *_memory(plan),
        *_writable(config, installed),
        "",
        *_rights(config, plan, installed, as_root=as_root),
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return "\n".join(lines) + "\n"


def _process(
    config: Config, plan: Plan, installed: Installation, sockets: list[str], *, as_root: bool
) -> Iterator[str]:
    """Yields how the daemon starts, reloads, stops and restarts."""
    yield "Type=notify"
    yield "NotifyAccess=main"
    yield f"ExecStart={_command([*installed.program, '--config', installed.config])}"
    yield f"ExecReload={_command([*installed.program, 'reload', '--config', installed.config])}"
    if sockets:
        yield f"Sockets={' '.join(sockets)}"
    yield f"User={'root' if as_root else installed.user}"
    if not as_root:
        yield f"Group={installed.user}"
    yield "TimeoutStartSec=60"
    yield f"TimeoutStopSec={_stop_seconds(config, plan):g}"
    yield "WatchdogSec=30"
    yield f"FileDescriptorStoreMax={_STORED_FDS}"
    yield f"Environment=FDSTORE={_STORED_FDS}"  # systemd before 254 does not set it
    yield "KillMode=mixed"
    yield "Restart=on-failure"
    yield "RestartSec=5"
    yield "RestartPreventExitStatus=2 78"
    yield "OOMPolicy=continue"


def _rights(config: Config, plan: Plan, installed: Installation, *, as_root: bool) -> Iterator[str]:
    capabilities = " ".join(_capabilities(config, as_root=as_root))
    yield f"AmbientCapabilities={'' if as_root else capabilities}"
    yield f"CapabilityBoundingSet={capabilities}"
    yield HARDENING.format(protect_home=_protect_home(config, plan, installed)).rstrip()
    if not _uses_devices(plan):
        yield "PrivateDevices=yes"


def _command(arguments: Sequence[str]) -> str:
    """Quotes arguments for a unit (systemd.service(5), COMMAND LINES)."""
    return _literal(shlex.join(arguments)).replace("$", "$$")


def _literal(text: str) -> str:
    """Escapes specifiers in text (systemd.unit(5))."""
    return text.replace("%", "%%")


def _socket(name: str, installed: Installation) -> str:
    return f"""\
[Unit]
Description=Socket "fd:{name}" of {_literal(installed.config)}

[Socket]
# Set the address: the configuration only names the socket.
ListenStream=80
FileDescriptorName={name}
Service={installed.name}.service
NoDelay=yes

[Install]
WantedBy=sockets.target
"""


def _descriptors(config: Config) -> set[str]:
    """Returns the names of the descriptors that systemd passes."""
    return {a.name for s in config.services.values() for a in s.listen if a.kind == "fd"}


def _has_users(config: Config) -> bool:
    return any(service.user or service.group for service in config.services.values())


def _capabilities(config: Config, *, as_root: bool) -> list[str]:
    addresses = [a for s in config.services.values() for a in s.listen]
    addresses += [a for a in (config.admin.listen, config.admin.metrics) if a is not None]
    low = any(a.kind == "tcp" and 0 < a.port < _FIRST_UNPRIVILEGED_PORT for a in addresses)
    return [*(["CAP_NET_BIND_SERVICE"] if low else []), *(AS_ROOT if as_root else ())]


def _stop_seconds(config: Config, plan: Plan) -> float:
    """Returns a limit for the longest drain plus the time until the daemon sets its own limit."""
    return (
        (config.daemon.stop_delay or 0.0)
        + _BEFORE_DRAIN_SECONDS
        + max((service.stop_seconds for service in plan.services), default=0.0)
    )


def _max_files(config: Config) -> int:
    return max([524288, *(s.rlimits.get("nofile", 0) for s in config.services.values())])


def _memory(plan: Plan) -> Iterator[str]:
    """Yields a total limit if each service has one, as a backstop of the kernel."""
    limits = [s.limits.memory for s in plan.services if s.workers]
    if not limits or any(limit is None for limit in limits):
        return
    # old and new workers run at the same time during a rolling restart
    total = sum(2 * s.workers * (s.limits.memory or 0) for s in plan.services) + _DAEMON_BYTES
    yield f"MemoryMax={total}"


def _writable(config: Config, installed: Installation) -> Iterator[str]:
    """Yields the folders outside its own that servd writes to."""
    addresses = [a for s in config.services.values() for a in s.listen]
    addresses += [config.admin.listen] if config.admin.listen is not None else []
    found = {os.path.dirname(address.path) for address in addresses if address.kind == "unix"}
    if config.daemon.log.file:
        found.add(os.path.dirname(os.path.abspath(config.daemon.log.file)))
    if config.daemon.runtime_dir:
        found.add(config.daemon.runtime_dir)
    own = f"/run/{installed.name}"
    outside = sorted(path for path in found if path != own and not path.startswith(f"{own}/"))
    if outside:
        yield f"ReadWritePaths={_literal(shlex.join(outside))}"


def _protect_home(config: Config, plan: Plan, installed: Installation) -> str:
    """Returns "yes" (hidden), or "read-only" if a path lies in a home."""
    paths = [installed.config, *installed.program, installed.interpreter]
    for service in plan.services:
        paths += [service.directory, service.python, *service.command[:1]]
        tls = service.definition.tls
        paths += [tls.certfile, tls.keyfile, tls.ca_certs] if tls else []
        paths += [file.path for file in service.definition.env_file]
    homes = ("/home/", "/root/", "/run/user/")
    return "read-only" if any(path.startswith(homes) for path in paths) else "yes"


def _uses_devices(plan: Plan) -> bool:
    """Returns whether GPUs are requested, which PrivateDevices would hide."""
    return any(s.definition.gpus or (s.part is not None and s.part.gpus) for s in plan.services)
