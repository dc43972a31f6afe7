"""The daemon's end of the private channel to one worker: lines of JSON, in both directions."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
from collections.abc import Callable
from typing import Any

from servd.supervisor.io.messages import WorkerMessage, read_message
from servd.supervisor.io.output import waiting_bytes
from servd.supervisor.io.reader import BoundedReader, ReadBudget

ANSWER_SECONDS = 10.0
"""Time limit for a worker to answer a request."""

LONGEST_MESSAGE = 256 * 1024
"""The channel is no longer read once an unfinished message exceeds this many bytes."""

_SEND_SPEC_SECONDS = 5.0
_READ_BYTES = 8192


class UnansweredError(Exception):
    """A worker did not do what was requested; the message gives the reason."""


class WorkerChannel:
    """Asks a worker to do things; passes its other messages to `said`, its end to `hung_up`."""

    def __init__(
        self,
        sock: socket.socket,
        said: Callable[[WorkerMessage], None],
        hung_up: Callable[[], None],
        budget: ReadBudget,
    ) -> None:
        self.said = said
        self.hung_up = hung_up
        self._socket = sock
        self._buffer = b""
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[str]] = {}
        self._loop = asyncio.get_running_loop()
        sock.setblocking(False)
        self._reader = BoundedReader(sock.fileno(), lambda: self.hear() > 0, budget)

    def tell(self, text: str) -> None:
        """Sends the first message. It fits into the channel's buffer, so this does not wait."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._socket.settimeout(_SEND_SPEC_SECONDS)
            self._socket.sendall(text.encode() + b"\n")
        self._socket.setblocking(False)

    async def ask(
        self, do: str, ended: asyncio.Future[int], *, descriptor: int | None = None, **details: Any
    ) -> None:
        """Asks for `do`, hands `descriptor` over with it, and waits until it is done. Raises
        `UnansweredError` when the worker cannot, has `ended`, or does not answer in time.
        """
        number = next(self._numbers)
        answer: asyncio.Future[str] = self._loop.create_future()
        self._answers[number] = answer
        try:
            message = json.dumps({"ask": number, "do": do, **details}).encode() + b"\n"
            try:
                if descriptor is None:
                    self._socket.send(message)
                else:
                    socket.send_fds(self._socket, [message], [descriptor])
            except OSError:
                raise UnansweredError("it is not running") from None
            waited: set[asyncio.Future[Any]] = {answer, ended}
            done, _ = await asyncio.wait(
                waited, timeout=ANSWER_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            if answer not in done:
                gone = ended in done
                raise UnansweredError("it exited" if gone else f"no answer in {ANSWER_SECONDS:g} s")
            if answer.result():
                raise UnansweredError(answer.result())
        finally:
            del self._answers[number]

    def hear(self) -> int:
        """Reads what has arrived; returns the number of bytes."""
        try:
            chunk = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return 0
        except OSError:
            chunk = b""
        if not chunk or len(self._buffer) + len(chunk) > LONGEST_MESSAGE:
            self._reader.close()
            self.hung_up()
            return 0
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        for line in lines:
            message = read_message(line)
            if message is not None:
                self._take(message)
        return len(chunk)

    def _take(self, message: WorkerMessage) -> None:
        if message.answer is None:
            self.said(message)
            return
        asked = self._answers.get(message.answer)
        if asked is not None and not asked.done():
            asked.set_result(message.error)

    def close(self) -> None:
        """Reads the rest, and closes."""
        waiting = waiting_bytes(self._socket.fileno())  # a child may write for ever
        while waiting > 0 and (taken := self.hear()):
            waiting -= taken
        self._reader.close()
        self._socket.close()
