"""The effect of a change of each key on what runs. A key that is not listed has the kind of its
table (`timeouts.drain` that of `timeouts`); a test checks that every key has a kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

ServiceKind = Literal["live", "scale", "roll", "rebind", "switch"]
"""The effect of a change of one key. A whole service can also be added or removed; a service that
binds its own address is interrupted where others roll."""

SERVICE_KINDS: Mapping[str, ServiceKind] = {
    # what runs
    "app": "roll",
    "command": "roll",
    "bento": "roll",
    "components": "roll",
    "factory": "roll",
    "interface": "roll",
    "directory": "roll",
    "python": "roll",
    "kind": "roll",
    "run": "live",
    # where
    "listen": "rebind",
    "socket": "live",  # mode and owner of the existing file
    "backlog": "live",
    "public_url": "live",
    # how many, on which hardware
    "workers": "scale",
    "threads": "roll",
    "preload": "roll",
    "gpus": "roll",
    "cpu_affinity": "roll",
    # a worker receives the addresses of its dependencies at start
    "depends_on": "roll",
    # time, limits, health
    "timeouts": "roll",
    "timeouts.startup": "live",
    "limits": "roll",
    "health": "live",
    "watchdog": "live",
    # commands
    "ready": "roll",
    "activation": "roll",
    "stop_signal": "roll",
    # restart and replacement
    "restart": "live",
    "rollout": "live",
    # the rest
    "env": "roll",
    "env_file": "roll",
    "env_passthrough": "roll",
    "user": "roll",
    "group": "roll",
    "umask": "roll",
    "rlimits": "roll",
    "log": "roll",
    "log.level": "live",
    "proxy": "roll",
    "root_path": "roll",
    "uvicorn": "roll",
    "tls": "switch",  # added or removed
    "tls.certfile": "live",
    "tls.keyfile": "live",
    "tls.keyfile_password": "live",
    "tls.ca_certs": "roll",
    "tls.client_auth": "switch",  # when tightened; loosened, it rolls
    "tls.min_version": "roll",
    "tls.ciphers": "roll",
    "tls.rotate": "live",
}

DaemonKind = Literal["live", "restart"]
"""Whether a running daemon applies a new value, or has to be restarted for it."""

DAEMON_KINDS: Mapping[str, DaemonKind] = {
    "version": "live",
    "include": "live",
    "defaults": "live",  # compared in the services that inherit it
    "services": "live",
    "hooks": "live",
    "daemon.runtime_dir": "restart",
    "daemon.watch": "live",
    "daemon.watch_debounce": "live",
    "daemon.shutdown_timeout": "live",
    "daemon.start_concurrency": "live",
    "daemon.on_start_failure": "live",
    "daemon.gpus": "live",
    "daemon.log": "live",
    "admin": "live",
}


def service_kind(key: str) -> ServiceKind:
    """Returns the kind of a service's dotted key. Raises KeyError for an unknown key."""
    return SERVICE_KINDS[_nearest(key, SERVICE_KINDS)]


def daemon_kind(key: str) -> DaemonKind:
    """Returns the kind of a dotted key outside the services. Raises KeyError for an unknown key."""
    return DAEMON_KINDS[_nearest(key, DAEMON_KINDS)]


def _nearest(key: str, table: Mapping[str, object]) -> str:
    found = key
    while found not in table and "." in found:
        found = found.rpartition(".")[0]
    return found
