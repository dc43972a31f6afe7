"""The folders in which apps keep their own metrics, and the meaning of their file names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from servd.plan.model import USER_MARK

FOLDED = 0
"""The pid under which the daemon keeps the sums of ended processes: no process has it."""

_MODES = "all|liveall|min|livemin|max|livemax|sum|livesum|mostrecent|livemostrecent"
_FILE = re.compile(rf"(counter|histogram|summary|gauge_(?:{_MODES}))_(\d{{1,10}})\.db")


def services(root: str) -> set[str]:
    """Returns the services that have a folder."""
    return {_service_of(folder) for folder in _listed(root)}


def files(root: str, service: str) -> Iterator[tuple[str, str, int]]:
    """Yields path, type and pid of each prometheus_client file of a service."""
    for folder in _listed(root):
        if _service_of(folder) != service:
            continue
        for name in _listed(os.path.join(root, folder)):
            match = _FILE.fullmatch(name)
            if match is not None and int(match[2]) != FOLDED:
                yield os.path.join(root, folder, name), match[1], int(match[2])


def lives(pid: int) -> bool:
    """Whether a process with this pid exists."""
    return os.path.exists(f"/proc/{pid}")


def _service_of(folder: str) -> str:
    return folder.partition(USER_MARK)[0]


def _listed(folder: str) -> list[str]:
    """Returns the names in a folder; none if it cannot be read."""
    try:
        return os.listdir(folder)
    except OSError:
        return []
