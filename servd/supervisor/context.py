"""What all services share: Circus's arbiter, the sockets, and the way out for output."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from servd.supervisor.circus.arbiter import ServdArbiter
from servd.supervisor.circus.watcher import StartLimiter
from servd.supervisor.counters import CounterRegistry
from servd.supervisor.io.output import Sink
from servd.supervisor.sockets.pool import SocketPool
from servd.supervisor.sources import Sources
from servd.supervisor.worker_registry import WorkerRegistry


@dataclass(frozen=True, slots=True)
class SupervisorContext:
    """What all services share. `environ` is the daemon's own environment; `stopping` is set once
    the daemon shall end: nothing is begun any more that an end would have to wait for. `sources`
    are noted in development only; `plan_anew` is called for a service whose code can be asked now
    what it declares.
    """

    arbiter: ServdArbiter
    pool: SocketPool
    gate: StartLimiter
    sink: Sink
    now: Callable[[], str]
    notify_folder: str
    environ: Mapping[str, str]
    counts: CounterRegistry = field(default_factory=CounterRegistry)
    roster: WorkerRegistry = field(default_factory=WorkerRegistry)
    sources: Sources | None = None
    plan_anew: Callable[[str], object] = lambda _: None
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
