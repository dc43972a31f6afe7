"""When a worker is ready: READY=1 on its own notification socket, or a probe that succeeds."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import Callable

from servd.plan.model import ReadyPlan
from servd.wire.notify import parse

_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 0.5


class NotifySocket:
    """One worker's NOTIFY_SOCKET: a datagram socket in the runtime folder that only its user may
    write to.
    """

    def __init__(self, folder: str, owner: int | None, on_fields: Callable[[dict[str, str]], None]):
        self.path = os.path.join(folder, secrets.token_hex(6))
        self.on_fields = on_fields
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._socket.bind(self.path)
            os.chmod(self.path, 0o600)
            if owner is not None:
                os.chown(self.path, owner, -1)
        except OSError:
            self.close()
            raise
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket.fileno(), self.read)

    def read(self) -> None:
        """Hands over everything that has arrived."""
        while self._socket.fileno() >= 0:
            try:
                datagram = self._socket.recv(65536)
            except OSError:
                return
            self.on_fields(parse(datagram))

    def close(self) -> None:
        """Stops listening and removes the socket's file."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
        with contextlib.suppress(OSError):
            os.unlink(self.path)


async def probe_until_ready(plan: ReadyPlan) -> None:
    """Returns once the plan's port accepts, or its path answers 2xx or 3xx.

    Programs that say nothing can only be asked: with pauses that grow from 20 ms to half a second.
    Whoever waits sets the deadline.
    """
    pause = _FIRST_PAUSE
    while not await probe(plan):
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE)


async def probe(plan: ReadyPlan) -> bool:
    """Whether the plan's address accepts (mode "port") or answers well (mode "http") now."""
    try:
        async with asyncio.timeout(plan.timeout):
            reader, writer = await _connect(plan)
            try:
                return plan.mode == "port" or await _answers_well(plan, reader, writer)
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
        return False


async def _connect(plan: ReadyPlan) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    address = plan.address
    assert address is not None
    if address.kind == "unix":
        return await asyncio.open_unix_connection(address.path)
    return await asyncio.open_connection(address.from_here.host, address.port)


async def _answers_well(
    plan: ReadyPlan, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    request = f"GET {plan.path} HTTP/1.1\r\nHost: {plan.host}\r\nConnection: close\r\n\r\n"
    writer.write(request.encode())
    status = (await reader.readline()).split(b" ")
    return len(status) > 1 and status[0].startswith(b"HTTP/") and status[1][:1] in (b"2", b"3")
