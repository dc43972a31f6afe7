"""The daemon whose place this one takes, as this one sees it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Callable, Collection, MutableMapping
from typing import Any

import structlog

from servd._version import __version__
from servd.core.errors import ServdError
from servd.daemon.upgrade.message import LONGEST_LINE_BYTES, parse_message
from servd.daemon.upgrade.state import UpgradeState
from servd.wire.names import HANDOVER

_PATIENCE = 10.0
"""Seconds in which the running daemon has to say what it hands over."""

_CHUNK = 1 << 16

log = structlog.get_logger()


class OldDaemon:
    """Speaks with it by lines of JSON, until it has ended (`gone`)."""

    def __init__(self, channel: socket.socket, state: UpgradeState) -> None:
        self.state = state
        self.gone = asyncio.Event()
        self._channel = channel
        self._released: set[str] = set()
        self._ended: set[str] = set()
        self._agreed: asyncio.Future[bool] | None = None
        self._stops = False
        self._changed = asyncio.Event()
        self._listening: asyncio.Task[None] | None = None

    def failed(self, error: str, last_lines: Collection[str] = ()) -> None:
        """Says why this one cannot run."""
        self._tell(failed=error, last_lines=list(last_lines))

    def expect(self, seconds: float) -> None:
        """Says how long it may take until all is ready here."""
        self._tell(within=seconds)

    def force_stop(self) -> None:
        """Asks it to end at once."""
        self._tell(hurry=True)

    def listen(self, on_reload: Callable[[], object]) -> None:
        """Hears what it says from now on, in the running loop. Calls `on_reload` when it was asked
        for a reload that it leaves to this daemon.
        """
        self._listening = asyncio.get_running_loop().create_task(self._listen(on_reload))

    async def agree(
        self, at_once: Collection[str], taken: Collection[str], admin: Collection[str]
    ) -> None:
        """Says that all is ready here, and returns once it has handed over, or has died, which
        comes to the same. `taken` and `admin` are the keys of the sockets that are used here too;
        the services `at_once` must not accept there any more when they do here.

        Raises `ServdError` where it stops instead.
        """
        self._agreed = asyncio.get_running_loop().create_future()
        if self._stops:
            self._answer(ours=False)
        elif self.gone.is_set():
            self._answer(ours=True)
        self._tell(
            ready={
                "version": __version__,
                "taken": list(taken),
                "admin": list(admin),
                "at_once": list(at_once),
            }
        )
        if not await self._agreed:
            raise ServdError("the daemon before stops")

    def confirm(self) -> None:
        """Says that this daemon has taken over."""
        self._tell(mine=True)

    async def released(self, name: str) -> None:
        """Returns once the workers accept no more that a service has there."""
        await self._until(lambda: name in self._released)

    async def ended(self, name: str) -> None:
        """Returns once the workers have ended that a service has there."""
        await self._until(lambda: name in self._ended)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not (condition() or self.gone.is_set()):
            self._changed.clear()
            await self._changed.wait()

    async def _listen(self, on_reload: Callable[[], object]) -> None:
        self._channel.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(
            sock=self._channel, limit=LONGEST_LINE_BYTES
        )
        try:
            while line := await reader.readline():
                self._heard(parse_message(line), on_reload)
        except (OSError, ValueError, TypeError):
            pass  # it has died, or is not understood
        finally:
            writer.close()
            self.gone.set()
            self._changed.set()
            self._answer(ours=not self._stops)

    def _heard(self, message: dict[str, Any], on_reload: Callable[[], object]) -> None:
        self._released |= {*message.get("released", ()), *message.get("ended", ())}
        self._ended |= set(message.get("ended", ()))
        self._changed.set()
        if "reload" in message:
            on_reload()
        if "yours" in message:
            self._answer(ours=True)
        elif "stops" in message:
            self._stops = True
            self._answer(ours=False)

    def _answer(self, *, ours: bool) -> None:
        if self._agreed is not None and not self._agreed.done():
            self._agreed.set_result(ours)

    def _tell(self, **message: Any) -> None:
        with contextlib.suppress(OSError):  # it has died
            self._channel.sendall(json.dumps(message).encode() + b"\n")


def take(environ: MutableMapping[str, str]) -> OldDaemon | None:
    """The daemon that has started this process to take its place; None where nobody has.

    Raises `ServdError` when what it says is not understood.
    """
    text = environ.pop(HANDOVER, "")
    if not text.isdecimal():
        return None
    channel = socket.socket(fileno=int(text))
    channel.set_inheritable(False)
    channel.settimeout(_PATIENCE)
    try:
        state = UpgradeState.from_json(_document(channel))
    except BaseException:
        channel.close()
        raise
    for descriptor in state.descriptors:
        os.set_inheritable(descriptor, False)
    return OldDaemon(channel, state)


def _document(channel: socket.socket) -> bytes:
    """Reads what is handed over. Raises `ServdError`."""
    document = b""
    try:
        while not document.endswith(b"\n"):
            chunk = channel.recv(_CHUNK)
            if not chunk:
                raise ServdError("the running servd has ended")
            document += chunk
    except OSError as error:
        raise ServdError(f"the running servd cannot be asked: {error}") from None
    return document
