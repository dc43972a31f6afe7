"""The terminal as a screen: lines are drawn, and keys read."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Any

from servd.cli.render.line import Style, StyledLine
from servd.cli.screen.keys import KeyDecoder

_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_CLEAR = "\x1b[H\x1b[2J"

_ESCAPE_SECONDS = 0.05
"""Time after which a single Esc is the key, and not the begin of a sequence."""


class Terminal:
    """The alternate screen of stdout, with the keys of stdin; both are restored at the end."""

    def __init__(self, style: Style) -> None:
        self._style = style
        self._shown: list[str] = []
        self._stale = True
        self._keys = KeyDecoder()
        self._readable, self._writable = os.pipe()
        os.set_blocking(self._readable, False)
        os.set_blocking(self._writable, False)
        self._stdin = sys.stdin.fileno() if sys.stdin.isatty() else None
        self._mode: list[Any] | None = None
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Terminal:
        handlers = {
            signal.SIGWINCH: self._resized, signal.SIGTSTP: self._suspended,
            signal.SIGTERM: _terminated,
        }  # fmt: skip
        self._enter()
        for number, handler in handlers.items():
            self._handlers[number] = signal.signal(number, handler)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._leave()

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows."""
        found = os.get_terminal_size(sys.stdout.fileno())
        return found.columns or 80, found.lines or 24

    def wake(self) -> None:
        """Ends a wait for keys; may be called by another thread."""
        try:
            os.write(self._writable, b".")
        except BlockingIOError:
            return  # it is about to wake

    def draw(self, lines: Sequence[StyledLine]) -> None:
        """Draws lines from the top; only those that differ from what is shown are written."""
        texts = [line.text(self._style) for line in lines]
        if self._stale or len(texts) != len(self._shown):
            self._stale = False
            self._write(_CLEAR)
            self._shown = [""] * len(texts)
        self._write(
            "".join(
                f"\x1b[{row};1H\x1b[2K{text}"
                for row, (text, before) in enumerate(zip(texts, self._shown, strict=True), 1)
                if text != before
            )
        )
        self._shown = texts

    def redraw(self) -> None:
        """Has the next `draw` write everything."""
        self._stale = True

    def pressed(self) -> list[str]:
        """Waits for keys, or until `wake`; returns the keys, if any."""
        sources = [self._readable, *([self._stdin] if self._stdin is not None else [])]
        timeout = _ESCAPE_SECONDS if self._keys.waits else None
        readable, _, _ = select.select(sources, [], [], timeout)
        if self._readable in readable:
            os.read(self._readable, 4096)
        if self._stdin is None or self._stdin not in readable:
            return [] if readable else self._keys.flush()
        data = os.read(self._stdin, 4096)
        if not data:  # the terminal has gone
            return ["q"]
        return self._keys.feed(data)

    def _enter(self) -> None:
        if self._stdin is not None:
            self._mode = termios.tcgetattr(self._stdin)
            tty.setcbreak(self._stdin)
        self._write(_ENTER)
        self._stale = True

    def _leave(self) -> None:
        self._write(_LEAVE)
        if self._stdin is not None and self._mode is not None:
            termios.tcsetattr(self._stdin, termios.TCSADRAIN, self._mode)

    def _resized(self, number: int, frame: FrameType | None) -> None:
        self._stale = True
        self.wake()

    def _suspended(self, number: int, frame: FrameType | None) -> None:
        """Ctrl-Z: gives the terminal back, stops, and goes on when the shell says so."""
        self._leave()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._enter()
        self.wake()

    def _write(self, text: str) -> None:
        """Writes past Python's buffer, which signal handlers must not enter."""
        data = text.encode(errors="replace")
        while data:
            data = data[os.write(sys.stdout.fileno(), data) :]


def _terminated(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
