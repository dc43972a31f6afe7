"""What all services share: Circus's arbiter, the sockets, and the way out for output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from servd.supervisor.arbiter import ServdArbiter
from servd.supervisor.output import Sink
from servd.supervisor.sockets import SocketPool
from servd.supervisor.watcher import StartGate


@dataclass(frozen=True, slots=True)
class Engine:
    """What all services share. `environ` is the daemon's own environment."""

    arbiter: ServdArbiter
    pool: SocketPool
    gate: StartGate
    sink: Sink
    now: Callable[[], str]
    notify_folder: str
    environ: Mapping[str, str]
