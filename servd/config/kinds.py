"""What a change of each key means for what runs: the one table of it, beside the model.

A key that is not listed takes the kind of the table that it stands in (`timeouts.drain` that of
`timeouts`); a test walks every key of the model, so that none is without one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

ServiceKind = Literal["live", "scale", "roll", "rebind", "switch"]
"""From what a change of one key of a service follows. A service as a whole can also be added or
removed, and one that binds its own address is interrupted by what would roll others."""

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
    "socket": "live",  # mode and owner of the file that is there
    "backlog": "live",
    "public_url": "live",
    # how many, on what
    "workers": "scale",
    "threads": "roll",
    "preload": "roll",
    "gpus": "roll",
    "cpu_affinity": "roll",
    # who it needs: a worker is told where its dependencies are
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
    # when it dies, how it is replaced
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
    "tls.client_auth": "switch",  # when it is tightened; loosened, it rolls
    "tls.min_version": "roll",
    "tls.ciphers": "roll",
    "tls.rotate": "live",
}

DaemonKind = Literal["live", "restart"]
"""Whether a running daemon takes a new value over, or has to be restarted for it."""

DAEMON_KINDS: Mapping[str, DaemonKind] = {
    "version": "live",
    "include": "live",
    "defaults": "live",  # seen in the services that take it over
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
    """The kind of a service's key, written with dots; raises KeyError for one that has none."""
    return SERVICE_KINDS[_nearest(key, SERVICE_KINDS)]


def daemon_kind(key: str) -> DaemonKind:
    """The kind of a key outside the services; raises KeyError for one that has none."""
    return DAEMON_KINDS[_nearest(key, DAEMON_KINDS)]


def _nearest(key: str, table: Mapping[str, object]) -> str:
    found = key
    while found not in table and "." in found:
        found = found.rpartition(".")[0]
    return found
