"""A process that a template has forked, and that this one has adopted."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence
from typing import Protocol

from servd.wire.fork_request import ForkRequest


class Child(Protocol):
    """What the daemon uses of `subprocess.Popen`."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None:
        """Reaps the process if it has ended; returns its exit status."""

    def wait(self) -> int:
        """Waits for the end of the process, reaps it, and returns its exit status."""

    def kill(self) -> None:
        """Kills the process."""


class Forking(Protocol):
    """What makes a process faster than running its program does."""

    def fork(self, request: ForkRequest, descriptors: Sequence[int]) -> Child:
        """Makes it; `descriptors` are stdout, stderr, and those of the process. Raises OSError."""


class ForkedProcess:
    """Stands for a `subprocess.Popen` of the process `pid`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Reaps the process if it has ended; returns its exit status."""
        return self._wait(os.WNOHANG)

    def wait(self) -> int:
        """Waits for the end of the process, reaps it, and returns its exit status."""
        self._wait(0)
        assert self.returncode is not None
        return self.returncode

    def kill(self) -> None:
        """Kills the process."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, signal.SIGKILL)

    def _wait(self, options: int) -> int | None:
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, options)
            except ChildProcessError:  # somebody else has reaped it
                self.returncode = 0
            else:
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


def kill_with_group(child: Child) -> None:
    """Kills a process that leads its group, with the group."""
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
