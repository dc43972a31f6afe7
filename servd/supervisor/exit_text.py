"""What an exit status means, in words."""

from __future__ import annotations

import signal


def describe(status: int) -> str:
    """Describes an exit status."""
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
