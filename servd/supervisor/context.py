"""What all services share: Circus's arbiter, the sockets, and what every worker needs."""

from __future__ import annotations

import asyncio
from dataclasses import field

from servd.core.quick_dataclass import dataclass
from servd.supervisor.circus.arbiter import ServdArbiter
from servd.supervisor.circus.start_limiter import StartLimiter
from servd.supervisor.circus.worker_context import WorkerContext
from servd.supervisor.health.start_limit import GpuMemory
from servd.supervisor.sockets.pool import SocketPool


@dataclass(frozen=True, slots=True)
class SupervisorContext:
    """`stopping` is set when the daemon ends: nothing starts after it that the end must await.
    `gpu_memory` returns the GPU memory of processes, where that is known.
    """

    arbiter: ServdArbiter
    pool: SocketPool
    start_limiter: StartLimiter
    workers: WorkerContext
    gpu_memory: GpuMemory | None = None
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
