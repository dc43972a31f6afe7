"""The previous daemon, which this one replaces, as this one sees it."""

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

_STATE_SECONDS = 10.0
"""Time for the previous daemon to send its state."""

log = structlog.get_logger()


class OldDaemon:
    """Exchanges lines of JSON with the previous daemon until it has ended (`gone`)."""

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
        """Says why this daemon cannot run."""
        self._tell(failed=error, last_lines=list(last_lines))

    def expect(self, seconds: float) -> None:
        """Announces how long it may take until this daemon is ready."""
        self._tell(within=seconds)

    def force_stop(self) -> None:
        """Asks it to end now."""
        self._tell(hurry=True)

    def listen(self, on_reload: Callable[[], object]) -> None:
        """Reads its messages; calls `on_reload` for a reload that it leaves to this daemon."""
        self._listening = asyncio.get_running_loop().create_task(self._listen(on_reload))

    async def agree(
        self, at_once: Collection[str], taken: Collection[str], admin: Collection[str]
    ) -> None:
        """Says that this daemon is ready; returns once the previous one has handed over or has
        died. `taken` and `admin` are the keys of the sockets used here too; the services `at_once`
        must stop accepting there before they start here.

        Raises `ServdError` if it stops instead.
        """
        self._agreed = asyncio.get_running_loop().create_future()
        if self._stops:
            self._answer(ours=False)
        elif self.gone.is_set():
            self._answer(ours=True)
        sockets = {"taken": list(taken), "admin": list(admin)}
        self._tell(ready={"version": __version__, **sockets, "at_once": list(at_once)})
        if not await self._agreed:
            raise ServdError("the previous daemon is stopping")

    def confirm(self) -> None:
        """Says that this daemon has taken over."""
        self._tell(mine=True)

    async def released(self, name: str) -> None:
        """Waits until its workers of a service have stopped accepting."""
        await self._until(lambda: name in self._released)

    async def ended(self, name: str) -> None:
        """Waits until its workers of a service have ended."""
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
    """Returns the daemon that started this process as its replacement; None if none did.

    Raises `ServdError` when its state is not understood.
    """
    text = environ.pop(HANDOVER, "")
    if not text.isdecimal():
        return None
    channel = socket.socket(fileno=int(text))
    channel.set_inheritable(False)
    channel.settimeout(_STATE_SECONDS)
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
            chunk = channel.recv(1 << 16)
            if not chunk:
                raise ServdError("the running servd exited")
            document += chunk
    except OSError as error:
        raise ServdError(f"cannot read the state of the running servd: {error}") from None
    return document
