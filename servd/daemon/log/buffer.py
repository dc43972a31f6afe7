"""The last lines of the log, bounded: a follower that is too slow loses lines, and is told so."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import secrets
import threading
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from itertools import islice, takewhile
from typing import Any, NamedTuple

from servd.daemon.log.event import LogEvent, TakeEvent
from servd.daemon.log.print_files import OpenPrintFiles
from servd.daemon.log.sink import LogSink

LINES = 1000
BYTES = 256 * 1024
"""Most lines and bytes kept of each service, so that a busy one does not push out a quiet one."""

BYTES_OF_ALL = 16 * 2**20
"""Most bytes kept of all services together: many services have less each."""

MOST_SERVICES = 512
"""Services, present and past, whose lines are kept."""

FOLLOW_PAUSE_SECONDS = 0.05
"""Shortest time between two reads of a follower, however much is written."""


class Line(NamedTuple):
    """One event as JSON: its number, its service ("" for none) and its text. Several `lines` that
    came together have one entry, under the number of the last.
    """

    number: int
    service: str
    text: bytes
    lines: int = 1

    def each(self) -> list[Line]:
        """Returns the lines, oldest first."""
        if self.lines == 1:
            return [self]
        first = self.number - self.lines + 1
        texts = enumerate(self.text.split(b"\n"), first)
        return [Line(number, self.service, text) for number, text in texts]


class _Ring:
    """The last lines of one service. What came together is parted, and bounded exactly, only when
    somebody reads it. `forgotten` is the number of the last line that is known to be dropped.
    """

    def __init__(self) -> None:
        self.entries: deque[Line] = deque()
        self.forgotten = 0
        self._count = self._bytes = self._most = 0

    def add(self, entry: Line, most: int) -> None:
        """Keeps lines, and of earlier ones at least what fits in `most` bytes."""
        self._most = most
        self.entries.extend(entry.each() if len(entry.text) > most // 2 else [entry])
        self._count += entry.lines
        self._bytes += len(entry.text)
        while len(self.entries) > 1:
            oldest = self.entries[0]
            count, size = self._count - oldest.lines, self._bytes - len(oldest.text)
            if count < LINES and size < most:
                break
            self._count, self._bytes = count, size
            self.forgotten = self.entries.popleft().number

    def newest_first(self) -> Iterator[Line]:
        """Yields the last `LINES`, as far as they fit; the newest always."""
        count = size = 0
        for entry in reversed(self.entries):
            for line in reversed(entry.each()):
                count += 1
                size += len(line.text)
                if count > LINES or (size > self._most and count > 1):
                    self.forgotten = max(self.forgotten, line.number)
                    return
                yield line

    def after(self, number: int) -> list[Line]:
        """Returns the lines with a greater number, oldest first."""
        return [*takewhile(lambda line: line.number > number, self.newest_first())][::-1]

    def tail(self, count: int) -> list[Line]:
        """Returns the last `count` lines, oldest first."""
        return [*islice(self.newest_first(), count)][::-1]


class LogBuffer:
    """The last lines of everything, numbered from 1 in order of arrival.

    Lines may be added from any thread; everything else belongs to the daemon's loop.
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
        """Keeps an event as its line: its fields would take more than the bytes counted here. Lines
        that came together have a number each.
        """
        service, text, count = event.service, event.json, event.count
        with self._lock:
            self.newest += count
            ring = self._rings.get(service) or self._add_ring(service)
            most = min(BYTES, BYTES_OF_ALL // len(self._rings))
            ring.add(Line(self.newest, service, text, count), most)
            if not self._waiting or self._waking or self._loop is None:
                return
            self._waking = True
        with contextlib.suppress(RuntimeError):  # the loop has ended, and its followers
            self._loop.call_soon_threadsafe(self._wake)

    def _add_ring(self, service: str) -> _Ring:
        if len(self._rings) >= MOST_SERVICES:
            oldest = min(self._rings, key=lambda name: self._rings[name].entries[-1].number)
            del self._rings[oldest]
        return self._rings.setdefault(service, _Ring())

    def tail(self, count: int, services: Collection[str] = ()) -> list[Line]:
        """Returns the last `count` lines of these services, or of all, oldest first."""
        if not count:
            return []
        with self._lock:
            each = [ring.tail(count) for ring in self._chosen(services)]
        return list(heapq.merge(*each))[-count:]

    def after(
        self, number: int, services: Collection[str] = (), most: int = 500
    ) -> tuple[list[Line], bool]:
        """Returns up to `most` lines after `number`, and whether later ones are dropped already."""
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
        """Waits for a line after `number`, for `close`, or for `patience` seconds."""
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
        """Ends the buffer: followers have every line that was kept."""
        self.closed = True
        self._wake()


class LogRouter:
    """Routes all that is logged to the sink and to the buffers: `events` has the daemon's own
    events, which subscribers get too, `logs` those and all lines of workers. `print_files` are the
    services' own. `boot` names this run of the daemon: line numbers mean nothing to another.
    """

    def __init__(self, sink: LogSink) -> None:
        self.sink = sink
        self.print_files = OpenPrintFiles()
        self.events = LogBuffer()
        self.logs = LogBuffer()
        self.boot = secrets.token_hex(4)
        self._subscribers: tuple[TakeEvent, ...] = ()

    def by_worker(self, service: str, line: bytes | Mapping[str, Any], count: int = 1) -> None:
        """Takes a line of a service's worker, finished JSON or the fields of text; or `count`
        finished lines together.
        """
        self._log(LogEvent.by_worker(service, line, count))

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
        """Hands each event of the daemon to `take`, in the thread it comes from, until `close`."""
        self._subscribers += (take,)

    def close(self) -> None:
        """Drops subscribers and ends followers."""
        self._subscribers = ()
        self.events.close()
        self.logs.close()
