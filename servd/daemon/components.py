"""The parts of a daemon that go on in the next one, or that one has to know of."""

from __future__ import annotations

from dataclasses import dataclass

from servd.daemon.admin_protocol import Admin
from servd.daemon.fd_store import FdStore
from servd.daemon.reload.reloader import Reloader
from servd.daemon.runtime_dir import RuntimeDir
from servd.daemon.systemd import Systemd
from servd.supervisor.sockets.pool import SocketPool
from servd.supervisor.supervisor import Supervisor


@dataclass(frozen=True, slots=True)
class DaemonComponents:
    """What is handed over and taken over."""

    folder: RuntimeDir
    pool: SocketPool
    store: FdStore
    systemd: Systemd
    admin: Admin
    supervisor: Supervisor
    reloader: Reloader
