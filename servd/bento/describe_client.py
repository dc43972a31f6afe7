"""Queries the code of a BentoML service for its declarations, in a child process (stdlib only)."""

from __future__ import annotations

import contextlib
import json
import math
import os
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

from servd.wire.names import AREA, AREA_BYTES, BENTO_ARGUMENTS, DESCRIBE_LEVEL, METRICS_NEAR

_LONGEST_SECONDS = 3600.0
"""Longest wait at a time: select(2) and its like take no number of any size."""

_END_SECONDS = 0.5
"""Time for a process that is not needed to end by itself."""

_MOST_PRINTED_BYTES = 32 * 1024
"""What an import prints and is kept: the last of it fits into a pipe."""


def _has_stayed(said: bytes) -> bool:
    """Whether this is the whole document of a process that stays."""
    if not said.endswith(b"\n"):
        return False
    with contextlib.suppress(ValueError):
        return bool(json.loads(said).get("stays"))
    return False


class DescriptionError(Exception):
    """The query failed. `trace` is the traceback of the code. `is_mistake`: the code is missing."""

    def __init__(self, message: str, trace: str = "", *, is_mistake: bool = False) -> None:
        self.trace = trace
        self.is_mistake = is_mistake
        super().__init__(message)


class Description:
    """A query in a child process, started by the constructor. One that `stays` can become the first
    worker of the service (`servd.supervisor.templates.described`), until it is dropped; `socket`
    takes the request. `printed` is what the import printed; `is_current` tells whether the files of
    the code are still the same.
    """

    def __init__(
        self,
        argv: Sequence[str],
        folder: str,
        environ: Mapping[str, str],
        arguments: str = "",
        *,
        near: str | None = None,
        level: str = "info",
        **identity: Any,
    ) -> None:
        """`arguments` are those of the code, as JSON; `identity` are the options of Popen for the
        process's user. It stays with `near`, a folder above that of a worker's metrics, and logs
        what has `level`. Raises `DescriptionError`.
        """
        self.about = (tuple(argv), folder, arguments)
        self.environment = dict(environ)
        self.identity = identity
        self.socket: socket.socket | None = None
        given = {BENTO_ARGUMENTS: arguments} if arguments else {}
        theirs: list[socket.socket] = []
        if near is not None:
            self.socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            theirs.append(other)
            area = "." * AREA_BYTES
            given |= {AREA: area, METRICS_NEAR: near, DESCRIBE_LEVEL: level}
        lifeline, ours = os.pipe()  # the process ends when its other end is closed
        self._lifeline = [ours]
        self.printed = b""
        self.is_current: Callable[[], bool] = lambda: True
        self._said: tuple[str, str] | None = None
        try:
            self._process = subprocess.Popen(
                [*argv, *(str(each.fileno()) for each in theirs)],
                cwd=folder,
                env={**environ, **given},
                stdin=lifeline,
                start_new_session=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=[each.fileno() for each in theirs],
                **identity,
            )
        except OSError as error:
            self.let_go()
            reason = f"cannot run {argv[0]}: {error.strerror}"
            raise DescriptionError(reason, is_mistake=True) from None
        finally:
            os.close(lifeline)
            for each in theirs:
                each.close()

    def document(self, seconds: float) -> dict[str, Any]:
        """Waits up to `seconds`, and returns the declarations. Raises `DescriptionError`."""
        try:
            if self._said is None:
                self._said = self._read(seconds)
        except TimeoutError:
            self.drop()
            self._process.wait()
            raise DescriptionError(
                f"the import of its code took longer than {seconds:g} s"
            ) from None
        except BaseException:
            self.let_go()
            raise
        said, complained = self._said
        try:
            found: dict[str, Any] = json.loads(said)
            if not found.pop("stays", False):
                self.let_go()
                self._process.wait()
            if "error" not in found:
                return found
        except ValueError:
            self.let_go()
            self._process.wait()
            status = f"exit status {self._process.returncode}"
            last = (complained.strip().splitlines() or [status])[-1]
            raise DescriptionError(last) from None
        trace = found.get("trace") or ""
        raise DescriptionError(found["error"], trace, is_mistake=not trace)

    def _read(self, seconds: float) -> tuple[str, str]:
        """Reads both outputs to their ends, or up to the document of a process that stays: what the
        code has started may hold them open. Raises `TimeoutError`.
        """
        end = time.monotonic() + seconds
        heard: dict[int, bytes] = {}
        said, complained = (pipe.fileno() for pipe in self._pipes)
        with selectors.DefaultSelector() as selector, contextlib.ExitStack() as opened:
            for pipe in self._pipes:
                heard[pipe.fileno()] = b""
                os.set_blocking(pipe.fileno(), False)
                selector.register(opened.enter_context(pipe), selectors.EVENT_READ)
            while selector.get_map() and not _has_stayed(heard[said]):
                if (left := end - time.monotonic()) <= 0:
                    raise TimeoutError
                for key, _ in selector.select(min(left, _LONGEST_SECONDS)):
                    content = os.read(key.fd, 65536)
                    heard[key.fd] += content
                    if not content:
                        selector.unregister(key.fileobj)
            with contextlib.suppress(BlockingIOError):
                while complained in selector.get_map() and (more := os.read(complained, 65536)):
                    heard[complained] += more
        self.printed = heard[complained][-_MOST_PRINTED_BYTES:]
        texts = (heard[each].decode(errors="replace") for each in (said, complained))
        return next(texts), next(texts)

    @property
    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        return self._process.stdout, self._process.stderr

    @property
    def pid(self) -> int:
        """The pid of its process."""
        return self._process.pid

    @property
    def waits(self) -> bool:
        """Whether its process has described the code and waits to become a worker."""
        return self.socket is not None and self._said is not None and bool(self._lifeline)

    def hand_over(self) -> None:
        """The process is a worker now: somebody else waits for its end."""
        self._process.returncode = 0
        self.let_go()
        self._close()

    def _close(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def is_service(self) -> bool:
        """Waits for the answer, and returns whether there is a BentoML service."""
        try:
            return bool(self.document(math.inf))
        except DescriptionError:
            return False

    def let_go(self) -> None:
        """Asks the process to end, if it still runs, and does not wait."""
        with contextlib.suppress(IndexError):  # done already
            os.close(self._lifeline.pop())  # by one thread of two

    def drop(self) -> None:
        """Ends the query's process group, which may remove its files first."""
        self.let_go()
        self._close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
