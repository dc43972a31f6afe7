"""How long a worker may take to start: longer while it makes progress, or asks for more time."""

from __future__ import annotations

import asyncio
import contextlib
import operator
from collections.abc import Callable, Collection, Iterator

from servd.plan.model import MOST_STARTUPS, ServicePlan
from servd.supervisor.circus.process import WorkerProcess
from servd.supervisor.health import memory

GpuMemory = Callable[[Collection[int]], int]
"""Returns the bytes of GPU memory that some processes hold together, by their pids."""

NOTICEABLE_BYTES = 1024 * 1024
"""What a worker must have read, or taken, since it was last seen to make progress."""

_LOOK_SECONDS = 1.0

_PAUSE_FACTOR = 20
"""The pause after a slow look is at least this many times as long."""


class StartLimit:
    """The time until which a worker must be ready (`due`): `timeouts.startup`, or longer, in all up
    to ten times as long: while it asks for it (EXTEND_TIMEOUT_USEC), and with `timeouts.stall`
    while it makes progress. A stall that the file sets also ends a start early.
    """

    def __init__(
        self, process: WorkerProcess, plan: ServicePlan, gpu_memory: GpuMemory | None = None
    ) -> None:
        self._process = process
        self._plan = plan
        self._gpu_memory = gpu_memory
        self._loop = asyncio.get_running_loop()
        self._figures: list[int] = []
        self._sees_reads = True
        self.begin()

    def begin(self) -> None:
        """Begins the time of the worker, or begins it again."""
        self._began = self._progressed = self._loop.time()

    @property
    def due(self) -> float:
        """The time of the loop at which it has taken too long."""
        return min(self._began + MOST_STARTUPS * self._plan.startup, self._soft()[0])

    def _soft(self) -> tuple[float, str]:
        """The time that its behaviour gives it, and why it ends then."""
        plan = self._plan
        ends = [(self._began + plan.startup, "")]
        if (stall := plan.stall) is not None:
            reason = f"made no progress for {stall:g} s (timeouts.stall)"
            # what reads unseen may make progress
            ends = [] if plan.stall_is_set and self._sees_reads else ends
            ends.append((self._progressed + stall, reason))
        if self._process.extended_until is not None:
            reason = "was not ready within the time that it asked for (EXTEND_TIMEOUT_USEC)"
            ends.append((self._process.extended_until, reason))
        return max(ends, key=operator.itemgetter(0))

    @property
    def reason(self) -> str:
        """Why a worker is killed that was not ready when it was `due`."""
        end, reason = self._soft()
        startup = self._plan.startup
        if end > self._began + MOST_STARTUPS * startup:
            times = f"{MOST_STARTUPS} times timeouts.startup"
            reason = f"was not ready within {MOST_STARTUPS * startup:g} s ({times})"
        reason = reason or f"was not ready within {startup:g} s (timeouts.startup)"
        said = self._process.report.status_text
        cause = f": {self._process.unwell}" if self._process.unwell else ""
        return f"{reason}{cause}" + (f'; its last status was "{said}"' if said else "")

    @contextlib.contextmanager
    def kept_in(self, limit: asyncio.Timeout) -> Iterator[None]:
        """Keeps `limit` at the time that is due."""
        self._process.on_extension = lambda: self._move(limit)
        look = self._loop.create_task(self._follow(limit))
        try:
            yield
        finally:
            look.cancel()
            self._process.on_extension = lambda: None

    async def _follow(self, limit: asyncio.Timeout) -> None:
        while self._plan.stall is not None:
            began = self._loop.time()
            if self._progresses():
                self._progressed = self._loop.time()
            self._move(limit)
            costs = _PAUSE_FACTOR * (self._loop.time() - began)  # large trees, on the daemon's loop
            longest = self._plan.stall / 4
            await asyncio.sleep(min(longest, max(_LOOK_SECONDS, costs)))

    def _move(self, limit: asyncio.Timeout) -> None:
        if not limit.expired() and limit.when() != self.due:
            limit.reschedule(self.due)

    def _progresses(self) -> bool:
        """Whether it has noticeably read, or taken memory, since it last did."""
        pids = memory.tree(self._process.pid)
        reads = [memory.bytes_read(pid) for pid in pids]
        self._sees_reads = None not in reads
        now = [
            sum(each or 0 for each in reads),
            sum(memory.resident(pid) or 0 for pid in pids),
            self._gpu_memory(pids) if self._gpu_memory is not None else 0,
        ]
        before = self._figures or now
        grows = any(b - a >= NOTICEABLE_BYTES for a, b in zip(before, now, strict=True))
        # what it gives back, it may take again
        self._figures = now if grows else [min(pair) for pair in zip(before, now, strict=True)]
        return grows
