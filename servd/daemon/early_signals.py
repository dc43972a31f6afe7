"""Handles signals that arrive before the daemon's loop does: each would end the process."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any


class EarlySignals:
    """Handlers until the daemon's loop takes the signals. A signal to stop calls `give_up` and
    exits with 0, as it does later; SIGHUP sets `asked_to_reload`; others do nothing. For the main
    thread.
    """

    def __init__(self) -> None:
        self.give_up: Callable[[], None] = lambda: None
        self.asked_to_reload = False
        self._previous: dict[signal.Signals, Any] = {}

    def _stop(self, _: int, __: FrameType | None) -> None:
        self.give_up()
        raise SystemExit(0)

    def _remember(self, _: int, __: FrameType | None) -> None:
        self.asked_to_reload = True

    def __enter__(self) -> EarlySignals:
        handlers = {
            signal.SIGTERM: self._stop,
            signal.SIGINT: self._stop,
            signal.SIGHUP: self._remember,
            # not SIG_IGN, which processes started meanwhile would inherit
            signal.SIGUSR1: lambda *_: None,
            signal.SIGUSR2: lambda *_: None,
        }
        self._previous = {number: signal.signal(number, what) for number, what in handlers.items()}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
