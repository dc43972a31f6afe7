"""The components of a daemon, for those components that need several others."""

from __future__ import annotations

from servd.core.quick_dataclass import dataclass
from servd.daemon.admin_protocol import Admin
from servd.daemon.fd_store import FdStore
from servd.daemon.lifecycle import Lifecycle
from servd.daemon.log.buffer import LogRouter
from servd.daemon.reload.queue import ReloadQueue
from servd.daemon.reload.reloader import Reloader
from servd.daemon.runtime_dir import RuntimeDir
from servd.daemon.systemd import Systemd
from servd.supervisor.sockets.pool import SocketPool
from servd.supervisor.supervisor import Supervisor


@dataclass(frozen=True, slots=True)
class DaemonResources:
    """What a daemon opens before its loop runs."""

    folder: RuntimeDir
    router: LogRouter
    systemd: Systemd
    pool: SocketPool
    store: FdStore


@dataclass(frozen=True, slots=True)
class DaemonComponents:
    """What runs the services, and what asks for changes."""

    resources: DaemonResources
    lifecycle: Lifecycle
    queue: ReloadQueue
    supervisor: Supervisor
    reloader: Reloader
    admin: Admin
