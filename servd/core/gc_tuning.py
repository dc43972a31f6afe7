"""Spares the garbage collector the objects that an app or the daemon loads, which stay alive:
collections take a sixth of an app's loading time, and a full one later blocks requests for tens of
milliseconds.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

_default = gc.get_threshold()
_PAUSED = (1_000_000, *_default[1:])
"""Practically never; a number that no app would set."""

_SELDOM = (50_000, *_default[1:])


def seldom() -> None:
    """Makes collections rare: a command loads much, keeps most of it, and ends soon."""
    gc.set_threshold(*_SELDOM)


def pause() -> None:
    """Stops automatic collections."""
    gc.set_threshold(*_PAUSED)


def resume() -> None:
    """Exempts all present objects and resumes collections; thresholds set by the app are kept."""
    gc.freeze()
    if gc.get_threshold() == _PAUSED:
        gc.set_threshold(*_default)


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """Does without automatic collections in the block, which makes much and keeps most of it. It
    may be entered again, by other threads too.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def exempt() -> None:
    """Collects, and exempts what is left: for what stays as long as the process."""
    gc.collect()
    gc.freeze()
