"""The new daemon that replaces this one, as this one sees it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

from servd.core.basedir import base_dir
from servd.core.errors import ServdError
from servd.core.quick_dataclass import dataclass
from servd.daemon.upgrade.message import LONGEST_LINE_BYTES, parse_message
from servd.daemon.upgrade.state import UpgradeState
from servd.wire.graces import DISMISSED_DAEMON_SECONDS
from servd.wire.names import HANDOVER

_POLL_SECONDS = 0.02
_CONFIRMATION_SECONDS = 30.0
"""Time for the new daemon to confirm that it has taken over: it does nothing else then."""


class UpgradeError(ServdError):
    """The new daemon cannot take over: this one continues. `last_lines` are a failing worker's."""

    def __init__(self, message: str, last_lines: tuple[str, ...] = ()) -> None:
        self.last_lines = last_lines
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Ready:
    """The new daemon is ready: `taken` are the sockets that it uses, `admin` those of the admin API
    among them, `at_once` the services that must stop accepting here when they start there.
    """

    version: str
    taken: list[str]
    admin: list[str]
    at_once: list[str]

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> Ready:
        """Reads a message; another version of servd may say more. Raises KeyError."""
        return cls(**{field.name: message[field.name] for field in dataclasses.fields(cls)})


@dataclass(eq=False, slots=True)
class NewDaemon:
    """The process of the new daemon, and the channel to it."""

    _process: subprocess.Popen[bytes]
    _reader: asyncio.StreamReader
    _writer: asyncio.StreamWriter

    @classmethod
    async def start(cls, state: UpgradeState, environ: Mapping[str, str]) -> NewDaemon:
        """Starts it with this process's command line. Raises `UpgradeError`."""
        process, ours = _spawn(state, environ)
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=LONGEST_LINE_BYTES)
        writer.write(state.to_json() + b"\n")
        return cls(process, reader, writer)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ready(self, seconds: float) -> Ready:
        """Waits until all services are ready, in `seconds` or as it says. Raises `UpgradeError`."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(seconds) as limit:
                while True:
                    message = await self._hear()
                    if "within" in message:
                        seconds = float(message["within"])
                        limit.reschedule(loop.time() + seconds)
                    elif "failed" in message:
                        lines = tuple(str(line) for line in message.get("last_lines", ()))
                        raise UpgradeError(str(message["failed"]), lines)
                    elif "ready" in message:
                        return Ready.of(message["ready"])
        except TimeoutError:
            raise UpgradeError(f"the new servd was not ready within {seconds:.0f} s") from None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UpgradeError(f"invalid message from the new servd: {error!r}") from None

    async def confirms(self) -> None:
        """Waits until it has taken over. Raises `UpgradeError` if it does not."""
        try:
            async with asyncio.timeout(_CONFIRMATION_SECONDS):
                while "mine" not in await self._hear():
                    pass
        except TimeoutError:
            raise UpgradeError("the new servd did not take over in time") from None
        except ValueError as error:
            raise UpgradeError(f"invalid message from the new servd: {error!r}") from None

    async def heed(self, force_stop: Callable[[], None]) -> None:
        """Calls `force_stop` when it wants this daemon to end now. Returns when it has ended."""
        with contextlib.suppress(UpgradeError, ValueError):
            while True:
                if "hurry" in await self._hear():
                    force_stop()

    async def _hear(self) -> dict[str, Any]:
        """Reads a message. Raises `UpgradeError` when it has ended, ValueError for no message."""
        try:
            line = await self._reader.readline()
        except OSError:
            line = b""
        if not line:
            raise UpgradeError(f"{await self._end()} before it was ready (see its log)")
        return parse_message(line)

    def tell(self, **message: Any) -> None:
        """Sends it a message, if it still runs."""
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def dismiss(self) -> None:
        """Ends it, with its workers."""
        self.tell(stops=True)
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(DISMISSED_DAEMON_SECONDS):
                await self._end()
        except TimeoutError:
            self._process.kill()
            await self._end()
        self._writer.close()

    async def _end(self) -> str:
        """Waits until it has ended, and says how."""
        while (status := self._process.poll()) is None:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_SECONDS)  # the SIGCHLD handler does not know it
        how = f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"
        return f"the new servd {how}"


def _spawn(
    state: UpgradeState, environ: Mapping[str, str]
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Returns the process, and this end of the channel to it. Raises `UpgradeError`."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        process = subprocess.Popen(
            [sys.executable, *sys.orig_argv[1:]],
            env={**environ, HANDOVER: str(theirs.fileno())},
            pass_fds=[theirs.fileno(), *state.descriptors],
            cwd=base_dir(),
        )
    except OSError as error:
        ours.close()
        raise UpgradeError(f"cannot start {sys.executable}: {error.strerror}") from None
    finally:
        theirs.close()
    ours.setblocking(False)
    return process, ours
