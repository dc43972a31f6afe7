"""What the daemon makes of what a worker writes into a real pipe."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from typing import Any

from servd.daemon.log.event import LogEvent
from servd.supervisor.io.output import LastLines, OutputPipe
from servd.supervisor.io.rate_limit import LineRate
from servd.supervisor.io.reader import ReadBudget


class Reading:
    """What came out of a pipe for chunks written one after the other."""

    def __init__(self, *chunks: bytes, stream: str = "stdout", rate: int = 0) -> None:
        self.events: list[bytes] = []
        self.dropped: list[int] = []
        self.last = LastLines()
        asyncio.run(self._read(chunks, stream, rate))

    async def _read(self, chunks: tuple[bytes, ...], stream: str, rate: int) -> None:
        reading, writing = os.pipe()
        limit = LineRate(rate, self.dropped.append, lambda: 0.0)
        pipe = OutputPipe(
            reading,
            {"service": "web", "pid": 7},
            stream,
            last=self.last,
            sink=self._take,
            now=lambda: "now",
            rate=limit,
            budget=ReadBudget(),
        )
        os.set_blocking(writing, False)
        for chunk in chunks:
            view = memoryview(chunk)
            while view:
                try:
                    view = view[os.write(writing, view) :]
                except BlockingIOError:  # the pipe is read in this very thread
                    await asyncio.sleep(0.001)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        os.close(writing)
        pipe.drain()
        pipe.close()
        limit.report()

    def _take(self, service: str, line: bytes | Mapping[str, Any], count: int) -> None:
        event = LogEvent.by_worker(service, line, count)
        assert len(event.json.split(b"\n")) == count
        self.events.append(event.json)

    @property
    def fields(self) -> list[dict[str, Any]]:
        """The events, read."""
        return [json.loads(event) for event in self.events]

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The lines, read: several may have come together."""
        return [json.loads(line) for event in self.events for line in event.split(b"\n")]

    @property
    def texts(self) -> list[str]:
        """The texts of the events."""
        return [event["event"] for event in self.fields]
