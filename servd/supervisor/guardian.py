"""Starts the process that ends what programs leave behind when the daemon is killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import subprocess
import sys
import threading

from servd.core.processes import adopt_orphans

_PROGRAM = os.path.join(os.path.dirname(os.path.dirname(__file__)), "worker", "guardian.py")
_COMMAND = (sys.executable, "-I", "-S", _PROGRAM)
_STEP_SECONDS = 2.0
"""Time limit for its start and its exit; the daemon continues without it."""


def _let_go(starter: subprocess.Popen[bytes], turn: socket.socket) -> None:
    """Lets the guardian be nobody's child, as it outlives the daemon: the process that has started
    it ends while the daemon adopts nobody. What programs leave behind in this moment is not adopted
    either, so it is as short as can be.
    """
    turn.settimeout(_STEP_SECONDS)
    turn.recv(1)
    adopt_orphans(adopt=False)
    try:
        turn.close()
        starter.wait(_STEP_SECONDS)
    finally:
        adopt_orphans()


class Guardian:
    """The guardian of one daemon, which knows the workers by the list at `path`."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._wanted = False
        self._descriptors: tuple[int, int] | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Starts it in the background, once. Without it, the next daemon ends what this one leaves
        when it is killed.
        """
        if self._path and not self._wanted:
            self._wanted = True
            asyncio.get_running_loop().run_in_executor(None, self._start)

    def _start(self) -> None:
        with self._lock, contextlib.suppress(OSError, subprocess.TimeoutExpired):
            theirs, ours = os.pipe2(os.O_CLOEXEC)
            over, theirs_over = os.pipe2(os.O_CLOEXEC)
            turn, their_turn = socket.socketpair()
            try:
                self._descriptors = ours, over
                with their_turn:
                    number = their_turn.fileno()
                    starter = subprocess.Popen(
                        [*_COMMAND, str(theirs), self._path, str(number)],
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                        pass_fds=[theirs, theirs_over, number],
                        start_new_session=True,
                        cwd="/",
                        env={},
                    )
                _let_go(starter, turn)
            finally:
                turn.close()
                os.close(theirs)
                os.close(theirs_over)

    def stop(self) -> None:
        """Lets it end: the list has been removed."""
        with self._lock:
            if self._descriptors is None:
                return
            ours, over = self._descriptors
            self._descriptors = None
            os.close(ours)
            select.select([over], [], [], _STEP_SECONDS)  # readable once its end has closed it
            os.close(over)
