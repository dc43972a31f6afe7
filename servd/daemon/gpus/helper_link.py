"""One GPU helper: started, listened to, ended."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Callable, Mapping
from typing import cast

from servd.host.gpu_helper import end_helper, is_one_ending, start_helper
from servd.wire.gpu_messages import GpuLines, GpuReport, line_of, report_of

_REAP_SECONDS = 1.0
_POLL_SECONDS = 0.01


class HelperLink(asyncio.Protocol):
    """The socket to a helper. `take` gets its reports, `ended` why it said its last. What is no
    report ends it.
    """

    def __init__(self, take: Callable[[GpuReport], None]) -> None:
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._take = take
        self._lines = GpuLines()
        self._process: subprocess.Popen[bytes] | None = None
        self._transport: asyncio.Transport | None = None
        self._channel: socket.socket | None = None

    async def start(self, environ: Mapping[str, str], interval: float) -> None:
        """Starts the helper, once the one before has ended. Raises OSError."""
        for _ in range(round(_REAP_SECONDS / _POLL_SECONDS)):
            if not is_one_ending():
                break
            await asyncio.sleep(_POLL_SECONDS)
        helper = start_helper(environ, interval)
        self._process, self._channel = helper.process, helper.channel
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: self, sock=helper.channel)

    @property
    def pid(self) -> int | None:
        """The pid of the helper."""
        return self._process.pid if self._process is not None else None

    def look(self, number: int) -> None:
        """Asks for a snapshot with this number."""
        if self._transport is not None:
            self._transport.write(line_of({"look": number}))

    async def close(self) -> None:
        """Ends the helper. One whose question hangs in the kernel ends later: the daemon's reaper
        takes it.
        """
        if self._transport is not None:
            self._transport.abort()
        elif self._channel is not None:
            self._channel.close()
        if self._process is None:
            return
        end_helper(self._process)
        for _ in range(round(_REAP_SECONDS / _POLL_SECONDS)):
            if self._process.poll() is not None:
                return
            await asyncio.sleep(_POLL_SECONDS)
        self._process.returncode = 0  # nobody waits for it any more

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self.ended.done():
            return
        try:
            for line in self._lines.feed(data):
                self._take(report_of(line))
        except ValueError as error:
            self._end(f"the GPU helper sent what is no report: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._end("the GPU helper ended")

    def _end(self, reason: str) -> None:
        if not self.ended.done():
            self.ended.set_result(reason)
