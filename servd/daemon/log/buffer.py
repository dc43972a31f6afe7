"""The last lines of the log, bounded: a follower that is too slow loses lines, and is told so."""

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
    """One event as JSON: its number, its service ("" for none) and its text."""

    number: int
    service: str
    text: bytes

    def each(self) -> list[Line]:
        """Returns the lines of which this is the last, where several came together."""
        if b"\n" not in self.text:
            return [self]
        texts = self.text.split(b"\n")
        first = self.number - len(texts) + 1
        return [Line(first + index, self.service, text) for index, text in enumerate(texts)]


class _Ring:
    """The last lines of one service. `forgotten` is the number of the last line dropped."""

    def __init__(self) -> None:
        self.lines: deque[Line] = deque()
        """Those that came together have one entry, under the number of the last."""
        self.forgotten = 0
        self._count = self._bytes = 0

    def add(self, line: Line, count: int, most: int) -> None:
        """Keeps lines that came together, and as many earlier ones as fit in `most` bytes."""
        self.lines.append(line)
        self._count += count
        self._bytes += len(line.text)
        while self._count > LINES or (self._bytes > most and self._count > 1):
            self._drop(self._count - LINES, self._bytes - most)

    def _drop(self, lines: int, most_bytes: int) -> None:
        """Drops of the oldest entry so many lines and bytes, but not the newest line of all."""
        number, service, text = self.lines.popleft()
        start = text.find(b"\n", max(0, most_bytes - 1)) + 1 if most_bytes > 0 else 0
        if most_bytes > 0 and not start:
            start = len(text)
        if lines > 0:
            parts = text.split(b"\n", lines)
            start = max(start, len(text) - len(parts[-1]) if len(parts) > lines else len(text))
        if start >= len(text) and not self.lines:
            start = text.rfind(b"\n") + 1
        rest = text[start:]
        left = rest.count(b"\n") + 1 if rest else 0
        self._count -= text.count(b"\n") + 1 - left
        self._bytes -= len(text) - len(rest)
        self.forgotten = number - left
        if left:
            self.lines.appendleft(Line(number, service, rest))

    def after(self, number: int) -> list[Line]:
        """Returns the lines with a greater number, oldest first."""
        found: list[Line] = []
        for line in reversed(self.lines):
            if line.number <= number:
                break
            found += [one for one in reversed(line.each()) if one.number > number]
        return found[::-1]

    def tail(self, count: int) -> list[Line]:
        """Returns the last `count` lines, oldest first."""
        found: list[Line] = []
        for line in reversed(self.lines):
            if len(found) >= count:
                break
            found += reversed(line.each())
        return found[:count][::-1]


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
            ring.add(Line(self.newest, service, text), count, most)
            if not self._waiting or self._waking or self._loop is None:
                return
            self._waking = True
        with contextlib.suppress(RuntimeError):  # the loop has ended, and its followers
            self._loop.call_soon_threadsafe(self._wake)

    def _add_ring(self, service: str) -> _Ring:
        if len(self._rings) >= MOST_SERVICES:
            oldest = min(self._rings, key=lambda name: self._rings[name].lines[-1].number)
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
        """Hands each event of the daemon to `take`, in the thread it comes from, until `close`."""
        self._subscribers += (take,)

    def close(self) -> None:
        """Drops subscribers and ends followers."""
        self._subscribers = ()
        self.events.close()
        self.logs.close()
