"""Signals that come before the daemon has a loop to take them: each of them would end it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any


class EarlySignals:
    """While the block lasts, until the daemon's loop takes them: a signal to stop ends the process
    with 0, as it does later, once `give_up` was called; a SIGHUP is kept in `asked_to_reload`; the
    others mean nothing yet. For the main thread.
    """

    def __init__(self) -> None:
        self.give_up: Callable[[], None] = lambda: None
        self.asked_to_reload = False
        self._before: dict[signal.Signals, Any] = {}

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
            # a handler and not SIG_IGN, which every process that is started would inherit
            signal.SIGUSR1: lambda *_: None,
            signal.SIGUSR2: lambda *_: None,
        }
        self._before = {number: signal.signal(number, what) for number, what in handlers.items()}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
