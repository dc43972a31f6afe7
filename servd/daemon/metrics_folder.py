"""The folders in which apps keep their own metrics, as the daemon finds them."""

from __future__ import annotations

import os


def service_of(folder: str) -> str:
    """The service whose app keeps its metrics in `folder`: there is one for each user."""
    return folder.partition("~")[0]


def listed(folder: str) -> list[str]:
    """The names in a folder; none where it cannot be read."""
    try:
        return os.listdir(folder)
    except OSError:
        return []
