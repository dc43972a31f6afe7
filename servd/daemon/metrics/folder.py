"""The folders in which apps keep their own metrics: what their names and those of the files say."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from servd.plan.model import USER_MARK

FOLDED = 0
"""The pid under which the daemon keeps what the dead have left: no process has it."""

_FILE = re.compile(r"(counter|histogram|summary|gauge_[a-z]+)_(\d+)\.db")


def services(root: str) -> set[str]:
    """The services that have a folder."""
    return {_service_of(folder) for folder in _listed(root)}


def files(root: str, service: str) -> Iterator[tuple[str, str, int]]:
    """Path, type and pid of each file of a service that is one of prometheus_client's."""
    for folder in _listed(root):
        if _service_of(folder) != service:
            continue
        for name in _listed(os.path.join(root, folder)):
            match = _FILE.fullmatch(name)
            if match is not None and int(match[2]) != FOLDED:
                yield os.path.join(root, folder, name), match[1], int(match[2])


def lives(pid: int) -> bool:
    """Whether there is such a process."""
    return os.path.exists(f"/proc/{pid}")


def _service_of(folder: str) -> str:
    return folder.partition(USER_MARK)[0]


def _listed(folder: str) -> list[str]:
    """The names in a folder; none where it cannot be read."""
    try:
        return os.listdir(folder)
    except OSError:
        return []
