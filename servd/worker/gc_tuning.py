"""Python's garbage collector around the start of an app.

What an app loads stays for good: no collection need look at it, neither while it is loaded, where
that takes a sixth of the time, nor later, where a full one takes tens of milliseconds in which no
request is answered.
"""

from __future__ import annotations

import gc

_usual = gc.get_threshold()
_RARE = (1_000_000, *_usual[1:])
"""As good as never, and no number that an app would set."""


def pause() -> None:
    """No collection starts by itself from now on."""
    gc.set_threshold(*_RARE)


def resume() -> None:
    """Collects as usual again, but for all that there is now. (An app that has set up the collector
    by itself has it so.)
    """
    gc.freeze()
    if gc.get_threshold() == _RARE:
        gc.set_threshold(*_usual)
