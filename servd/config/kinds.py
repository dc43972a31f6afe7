"""The effect of a change of each key on what runs. A key that is not listed has the kind of its
table (`timeouts.drain` that of `timeouts`); a test checks that every key has a kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeVar

ServiceKind = Literal["live", "scale", "roll", "rebind", "switch"]
"""The effect of a change of one key. A whole service can also be added or removed; a service that
binds its own address is interrupted where others roll."""

DaemonKind = Literal["live", "restart"]
"""Whether a running daemon applies a new value, or only a restart does."""

KindT = TypeVar("KindT")


def _by_key(keys: Mapping[KindT, str]) -> Mapping[str, KindT]:
    return {key: kind for kind, listed in keys.items() for key in listed.split()}


# A worker receives the addresses of its dependencies at start: depends_on rolls. tls switches when
# it is added or removed, and client_auth when it is tightened; loosened, it rolls. What is said of
# GPUs is for the plan alone: a service rolls if that leads to other GPUs.
_SERVICE_KEYS: Mapping[ServiceKind, str] = {
    "scale": "workers",
    "rebind": "listen",
    "switch": "tls tls.client_auth",
    "live": """run autoscale socket backlog public_url timeouts.startup timeouts.stall warmup health
        watchdog watchdog_tree restart rollout gpus.memory gpus.topology log.level log.max_rate
        log.file log.max_size log.keep tls.certfile tls.keyfile tls.keyfile_password tls.rotate""",
    "roll": """app command bento external bento_args components factory interface directory
        python kind threads preload inputs gpus cpu_affinity depends_on timeouts limits ready
        activation stop_signal stop_command env env_file env_passthrough user group umask rlimits
        log proxy root_path uvicorn tls.ca_certs tls.min_version tls.ciphers""",
}
SERVICE_KINDS = _by_key(_SERVICE_KEYS)

# `defaults` are compared in the services that inherit them
_DAEMON_KEYS: Mapping[DaemonKind, str] = {
    "restart": "daemon.runtime_dir",
    "live": """version include defaults services hooks daemon.watch daemon.watch_debounce
        daemon.shutdown_timeout daemon.stop_delay daemon.start_concurrency daemon.on_start_failure
        daemon.gpus daemon.gpu_errors daemon.log admin""",
}
DAEMON_KINDS = _by_key(_DAEMON_KEYS)


def service_kind(key: str) -> ServiceKind:
    """Returns the kind of a service's dotted key. Raises KeyError for an unknown key."""
    return _nearest(key, SERVICE_KINDS)


def daemon_kind(key: str) -> DaemonKind:
    """Returns the kind of a dotted key outside the services. Raises KeyError for an unknown key."""
    return _nearest(key, DAEMON_KINDS)


def _nearest(key: str, kinds: Mapping[str, KindT]) -> KindT:
    while key not in kinds and "." in key:
        key = key.rpartition(".")[0]
    return kinds[key]
