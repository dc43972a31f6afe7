"""A command in a terminal of its own."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from support.harness import ServdProcess, wait_until


class Terminal:
    """A command in a terminal, 80 columns wide and 24 lines high."""

    def __init__(self, daemon: ServdProcess, *arguments: str, **environ: str) -> None:
        self.screen = ""
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            os.chdir(daemon.folder)
            program = [sys.executable, "-m", "servd", *arguments]
            own = {"TERM": "xterm-256color", **environ}
            os.execve(sys.executable, program, {**os.environ, **daemon.environ, **own})
        self.resize(80, 24)

    def resize(self, columns: int, rows: int) -> None:
        """Changes the size, as the window of a person would."""
        fcntl.ioctl(self.descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def shows(self, text: str) -> bool:
        """Whether it has shown `text` by now, colours left out."""
        readable, _, _ = select.select([self.descriptor], [], [], 0.01)
        if readable:
            with suppress(OSError):  # the program has ended
                self.screen += os.read(self.descriptor, 65536).decode(errors="replace")
        return text in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.screen)

    def press(self, keys: str) -> None:
        """Sends keys; what was shown before is forgotten."""
        while self.shows("") and select.select([self.descriptor], [], [], 0)[0]:
            pass
        self.screen = ""
        os.write(self.descriptor, keys.encode())

    def waits_for(self, text: str) -> None:
        """Waits until it shows `text`."""
        wait_until(lambda: self.shows(text), f"the terminal shows {text!r}")

    def status(self) -> int:
        """The exit status; what it writes until then is read."""

        def over() -> bool:
            self.shows("")
            pid, self._status = os.waitpid(self.pid, os.WNOHANG)
            return pid != 0

        wait_until(over, "it ends")
        self.pid = 0
        return os.waitstatus_to_exitcode(self._status)

    def close(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.descriptor)


@contextmanager
def terminal(daemon: ServdProcess, *arguments: str, **environ: str) -> Iterator[Terminal]:
    found = Terminal(daemon, *arguments, **environ)
    try:
        yield found
    finally:
        found.close()
