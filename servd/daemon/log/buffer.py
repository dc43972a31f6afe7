"""The last lines of the log, kept for whoever follows it: bounded, and without a queue for each
reader. A reader has a position; one that is too slow falls off the end, and is told so.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import secrets
import threading
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from servd.daemon.log.event import LogEvent, TakeEvent
from servd.daemon.log.sink import LogSink

LINES = 1000
BYTES = 256 * 1024
"""Lines and bytes that are kept of each service: a busy one does not push out a quiet one."""

BYTES_OF_ALL = 16 * 2**20
"""Bytes that are kept of all services together: of each fewer, where there are many."""

MOST_SERVICES = 512
"""Services (present and past) whose lines are kept."""

PAUSE = 0.05
"""Seconds between two looks of a follower: however much is written, it wakes no more often."""


class Line(NamedTuple):
    """One event as JSON: its number, the service that it is about ("" for none), the text."""

    number: int
    service: str
    text: bytes


class _Ring:
    """The last lines of one service. `forgotten` is the number of the last that was let go."""

    def __init__(self) -> None:
        self.lines: deque[Line] = deque()
        self.forgotten = 0
        self._bytes = 0

    def add(self, line: Line, most: int) -> None:
        """Keeps a line, and of those before as many as `most` bytes hold."""
        self.lines.append(line)
        self._bytes += len(line.text)
        while len(self.lines) > LINES or (self._bytes > most and len(self.lines) > 1):
            oldest = self.lines.popleft()
            self._bytes -= len(oldest.text)
            self.forgotten = oldest.number

    def after(self, number: int) -> list[Line]:
        """Lines with a greater number, oldest first."""
        found: list[Line] = []
        for line in reversed(self.lines):
            if line.number <= number:
                break
            found.append(line)
        return found[::-1]


class LogBuffer:
    """The last lines of everything, numbered from 1 in the order in which they came.

    Lines may be added from any thread; all else belongs to the daemon's loop.
    """

    def __init__(self) -> None:
        self.newest = 0
        self.closed = False
        self._rings: dict[str, _Ring] = {}
        self._lock = threading.Lock()
        self._waiting: set[asyncio.Future[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waking = False

    def add(self, event: LogEvent) -> None:
        """Keeps an event as its line: fields would take more than the bytes counted here."""
        service, text = event.service, event.json
        with self._lock:
            self.newest += 1
            ring = self._rings.get(service)
            if ring is None:
                ring = self._room_for(service)
            most = min(BYTES, BYTES_OF_ALL // len(self._rings))
            ring.add(Line(self.newest, service, text), most)
            if not self._waiting or self._waking or self._loop is None:
                return
            self._waking = True
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits
            self._loop.call_soon_threadsafe(self._wake)

    def _room_for(self, service: str) -> _Ring:
        """A ring for one more service; that with the oldest news gives way where there are many."""
        if len(self._rings) >= MOST_SERVICES:
            oldest = min(self._rings, key=lambda name: self._rings[name].lines[-1].number)
            del self._rings[oldest]
        return self._rings.setdefault(service, _Ring())

    def tail(self, count: int, services: Collection[str] = ()) -> list[Line]:
        """The last `count` lines, of these services or of all, oldest first."""
        with self._lock:
            each = [list(ring.lines)[-count:] if count else [] for ring in self._chosen(services)]
        return list(heapq.merge(*each))[-count:] if count else []

    def after(
        self, number: int, services: Collection[str] = (), most: int = 500
    ) -> tuple[list[Line], bool]:
        """The first `most` lines after the one with `number`, and whether others are forgotten that
        came after it.
        """
        with self._lock:
            rings = list(self._chosen(services))
            each = [ring.after(number) for ring in rings]
            gap = any(ring.forgotten > number for ring in rings)
        return list(heapq.merge(*each))[:most], gap

    def _chosen(self, services: Collection[str]) -> Iterator[_Ring]:
        if not services:
            return iter(self._rings.values())
        return (self._rings[name] for name in services if name in self._rings)

    async def more(self, number: int, patience: float) -> None:
        """Returns when there are lines after the one with `number`, or none will come any more, or
        `patience` seconds are over.
        """
        if self.newest > number or self.closed:
            return
        self._loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = self._loop.create_future()
        with self._lock:
            if self.newest > number:
                return
            self._waiting.add(waiter)
        try:
            await asyncio.wait({waiter}, timeout=patience)
        finally:
            with self._lock:
                self._waiting.discard(waiter)

    def _wake(self) -> None:
        with self._lock:
            waiting, self._waking = list(self._waiting), False
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    def close(self) -> None:
        """Nothing comes any more: whoever follows has all that there was."""
        self.closed = True
        self._wake()


class LogRouter:
    """Everything that is logged: written to the sink, and the last of it kept. What the daemon says
    itself are `events`, which subscribers get too; `logs` have that and all that workers write.

    `boot` names this run of the daemon: a number of a line means nothing to another.
    """

    def __init__(self, sink: LogSink) -> None:
        self.sink = sink
        self.events = LogBuffer()
        self.logs = LogBuffer()
        self.boot = secrets.token_hex(4)
        self._subscribers: tuple[TakeEvent, ...] = ()

    def by_worker(self, service: str, line: bytes | Mapping[str, Any]) -> None:
        """Takes a line of a service's worker: finished JSON, or the fields of text."""
        self._log(LogEvent.by_worker(service, line))

    def by_daemon(self, event: LogEvent) -> None:
        """Takes an event of the daemon."""
        if event.logged:
            self._log(event)
        self.events.add(event)
        for take in self._subscribers:
            take(event)

    def _log(self, event: LogEvent) -> None:
        self.sink.put(event)
        self.logs.add(event)

    def subscribe(self, take: TakeEvent) -> None:
        """Hands every event of the daemon to `take` until `close`, in the thread that it comes
        from.
        """
        self._subscribers += (take,)

    def close(self) -> None:
        """Lets go of subscribers and followers."""
        self._subscribers = ()
        self.events.close()
        self.logs.close()
