"""Handles signals that arrive before the daemon's loop does: each would end or stop the process."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

_IGNORED_BY_PYTHON = {signal.SIGPIPE, signal.SIGXFSZ}


def _do_nothing(*_: object) -> None:
    """Not SIG_IGN, which the programs of services would inherit."""


class EarlySignals:
    """Handlers until the daemon's loop takes the signals. A signal to stop calls `give_up` and
    exits with 0, as it does later; SIGHUP sets `asked_to_reload`; others do nothing. What whoever
    started the daemon ignored or blocked is neither for the programs that it runs: a shell starts
    what it runs with `&` without SIGINT and SIGQUIT. For the main thread.
    """

    def __init__(self) -> None:
        self.give_up: Callable[[], None] = lambda: None
        self.asked_to_reload = False
        self._previous: dict[int, Any] = {}

    def _stop(self, _: int, __: FrameType | None) -> None:
        self.give_up()
        raise SystemExit(0)

    def _remember(self, _: int, __: FrameType | None) -> None:
        self.asked_to_reload = True

    def __enter__(self) -> EarlySignals:
        handlers: dict[int, Any] = {
            signal.SIGTERM: self._stop,
            signal.SIGINT: self._stop,
            signal.SIGHUP: self._remember,
            # a background process that is stopped supervises nothing
            **dict.fromkeys((signal.SIGTTIN, signal.SIGTTOU), _do_nothing),
            **dict.fromkeys((signal.SIGUSR1, signal.SIGUSR2), _do_nothing),
        }
        for number in signal.valid_signals() - set(handlers):
            if signal.getsignal(number) is signal.SIG_IGN and number not in _IGNORED_BY_PYTHON:
                handlers[number] = signal.SIG_DFL if number == signal.SIGCHLD else _do_nothing
        self._previous = {number: signal.signal(number, what) for number, what in handlers.items()}
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
