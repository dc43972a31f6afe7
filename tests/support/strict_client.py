"""A load of requests by a client that forgives nothing.

Half of the requests are on new connections, half on kept ones, and slow ones are always in flight.
A kept connection that was idle for over a second is thrown away, `Connection: close` is honoured,
and nothing is ever tried again: whatever is refused, reset, cut short, answered by a 5xx or never
answered is lost. No more requests wait for their answers at a time than a server that is short of
CPU can be asked: then it asks less often.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

IDLE_SECONDS = 1.0
ANSWER_SECONDS = 90.0
"""An answer that has not come by then never will."""
AT_ONCE = 24
"""Requests that may wait for their answers at a time, apart from the slow ones."""
AROUND = 100
"""Requests that are made before something happens under the load, and after it."""


class LostError(Exception):
    """The answer was not what it should be."""


@dataclass(slots=True)
class Tally:
    """What the client met. `answers` counts bodies, `lost` says why and when, in seconds."""

    answered: int = 0
    slowest: float = 0.0
    answers: collections.Counter[str] = field(default_factory=collections.Counter)
    lost: list[str] = field(default_factory=list)
    serials: set[int] = field(default_factory=set)


@dataclass(slots=True)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    used: float = 0.0

    async def close(self) -> None:
        """Returns when the connection is really closed: TLS says good-bye first."""
        self.writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            await asyncio.wait_for(self.writer.wait_closed(), 1.0)


@dataclass(slots=True)
class StrictClient:
    """Asks `host:port` for `path` `rate` times a second, and for `slow_path` all the time."""

    host: str
    port: int
    context: ssl.SSLContext | None = None
    path: str = "/"
    slow_path: str = "/slow"
    rate: int = 200
    slow: int = 4
    tally: Tally = field(default_factory=Tally)
    _kept: list[_Connection] = field(default_factory=list)
    _closing: set[asyncio.Task[None]] = field(default_factory=set)
    _began: float = 0.0
    _round: int = 0
    _left: int = 0
    _over: asyncio.Event = field(default_factory=asyncio.Event)

    async def during(self, work: Callable[[], Awaitable[None]]) -> Tally:
        """Loads the server while `work` is done, and for a round of requests before and after."""
        self._began = time.monotonic()
        stop = asyncio.Event()
        requests = asyncio.ensure_future(self._steady(stop))
        slow = [asyncio.ensure_future(self._slowly(stop)) for _ in range(self.slow)]
        try:
            await self.round()
            await work()
            await self.round()
        finally:
            stop.set()
            await asyncio.gather(requests, *slow)
            for connection in self._kept:
                self._close(connection)
            await self.closed()
        return self.tally

    async def round(self, requests: int = AROUND) -> None:
        """Returns when so many requests were answered, or lost, that are begun from now on."""
        self._round += 1
        self._left = requests
        self._over.clear()
        await self._over.wait()

    def _close(self, connection: _Connection) -> None:
        task = asyncio.ensure_future(connection.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def closed(self) -> None:
        """Returns when no connection is left that is being closed."""
        await asyncio.gather(*self._closing)

    async def _steady(self, stop: asyncio.Event) -> None:
        pause = 2 / self.rate
        due = time.monotonic()
        running: set[asyncio.Task[None]] = set()
        while not stop.is_set():
            for kept in (True, False):
                task = asyncio.ensure_future(self._in_a_round(self.ask(self.path, kept=kept)))
                running.add(task)
                task.add_done_callback(running.discard)
            due = max(due + pause, time.monotonic())
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            while len(running) > AT_ONCE - 2:
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.gather(*running)

    async def _in_a_round(self, request: Awaitable[None]) -> None:
        mine = self._round
        await request
        if mine == self._round:
            self._left -= 1
            if self._left <= 0:
                self._over.set()

    async def _slowly(self, stop: asyncio.Event) -> None:
        kept = False
        while not stop.is_set():
            kept = not kept
            await self.ask(self.slow_path, kept=kept)

    async def ask(self, path: str, *, kept: bool) -> None:
        """One request; what becomes of it is in the tally."""
        started = time.monotonic()
        where = f"{'kept' if kept else 'new'} {path} at {started - self._began:.2f}"
        connection: _Connection | None = None
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                connection = self._take() if kept else None
                reused = connection is not None
                if connection is None:
                    connection = await self._connect()
                stays, body = await self._request(connection, path)
        except TimeoutError:
            self.tally.lost.append(f"{where}: no answer")
        except (OSError, EOFError, LostError) as error:
            age = (
                ""
                if connection is None or not reused
                else f" (idle {started - connection.used:.2f} s)"
            )
            self.tally.lost.append(f"{where}: {error!r}{age}")
        else:
            self.tally.answered += 1
            self.tally.answers[body] += 1
            self.tally.slowest = max(self.tally.slowest, time.monotonic() - started)
            if kept and stays:
                connection.used = time.monotonic()
                self._kept.append(connection)
                return
        if connection is not None:
            self._close(connection)

    def _take(self) -> _Connection | None:
        while self._kept:
            connection = self._kept.pop()
            if time.monotonic() - connection.used <= IDLE_SECONDS:
                return connection
            self._close(connection)
        return None

    async def _connect(self) -> _Connection:
        name = "localhost" if self.context is not None else None
        reader, writer = await asyncio.open_connection(
            self.host, self.port, ssl=self.context, server_hostname=name
        )
        if self.context is not None:
            with contextlib.suppress(KeyError, TypeError):
                certificate = writer.get_extra_info("peercert")
                self.tally.serials.add(int(certificate["serialNumber"], 16))
        return _Connection(reader, writer)

    async def _request(self, connection: _Connection, path: str) -> tuple[bool, str]:
        """The body, and whether the connection may be used again."""
        connection.writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head = (await connection.reader.readuntil(b"\r\n\r\n")).lower()
        status = int(head.split(b" ", 2)[1])
        length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        body = (await connection.reader.readexactly(length)).decode()
        if status >= 500:
            raise LostError(f"{status}: {body[:60]}")
        return b"connection: close" not in head, body
