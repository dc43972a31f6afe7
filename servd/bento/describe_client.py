"""Queries the code of a BentoML service for its declarations, in a child process (stdlib only)."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from servd.wire.names import BENTO_ARGUMENTS

MODULE = "servd.worker.bento.describe"

_END_SECONDS = 0.5
"""Time for a process that is not needed to end by itself."""


class DescriptionError(Exception):
    """The query failed. `trace` is the traceback of the code. `is_mistake`: the code is missing."""

    def __init__(self, message: str, trace: str = "", *, is_mistake: bool = False) -> None:
        self.trace = trace
        self.is_mistake = is_mistake
        super().__init__(message)


class Description:
    """A query in a child process, started by the constructor."""

    def __init__(
        self,
        argv: Sequence[str],
        folder: str,
        environ: Mapping[str, str],
        arguments: str = "",
        **options: Any,
    ) -> None:
        """`arguments` are those of the code, as JSON; `options` of Popen set the process's user.
        Raises `DescriptionError`.
        """
        self.about = (tuple(argv), folder, arguments)
        given = {BENTO_ARGUMENTS: arguments} if arguments else {}
        lifeline, ours = os.pipe()  # the process ends when its other end is closed
        self._lifeline = [ours]
        try:
            self._process = subprocess.Popen(
                argv,
                cwd=folder,
                env={**environ, **given},
                stdin=lifeline,
                start_new_session=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                **options,
            )
        except OSError as error:
            self.let_go()
            reason = f"cannot run {argv[0]}: {error.strerror}"
            raise DescriptionError(reason, is_mistake=True) from None
        finally:
            os.close(lifeline)

    def document(self, seconds: float) -> dict[str, Any]:
        """Waits up to `seconds`, and returns the declarations. Raises `DescriptionError`."""
        try:
            said, complained = self._process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.drop()
            self._process.communicate()
            raise DescriptionError(
                f"the import of its code took longer than {seconds:g} s"
            ) from None
        finally:
            self.let_go()
        try:
            found: dict[str, Any] = json.loads(said)
            if "error" not in found:
                return found
        except ValueError:
            status = f"exit status {self._process.returncode}"
            last = (complained.strip().splitlines() or [status])[-1]
            raise DescriptionError(last) from None
        trace = found.get("trace") or ""
        raise DescriptionError(found["error"], trace, is_mistake=not trace)

    def let_go(self) -> None:
        """Asks the process to end, if it still runs, and does not wait."""
        with contextlib.suppress(IndexError):  # done already
            os.close(self._lifeline.pop())  # by one thread of two

    def drop(self) -> None:
        """Ends the query's process group, which may remove its files first."""
        self.let_go()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
