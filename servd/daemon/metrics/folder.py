"""The folders in which apps keep their own metrics, and the meaning of their file names."""

from __future__ import annotations

import contextlib
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
    for folder in _folders(root, service):
        for name in _listed(folder):
            match = _FILE.fullmatch(name)
            if match is not None and int(match[2]) != FOLDED:
                yield os.path.join(folder, name), match[1], int(match[2])


def publish(root: str, service: str, kind: str, content: bytes) -> None:
    """Writes the sums of ended processes into the folders of a service, where an app that shows its
    metrics by itself reads them. A folder that cannot be written to is left out.
    """
    for folder in _folders(root, service):
        with contextlib.suppress(OSError):
            _write(folder, f"{kind}_{FOLDED}.db", content)


def _write(folder: str, name: str, content: bytes) -> None:
    """Replaces a file in a folder of another user, who may have put links or folders there. The
    new one is that user's. Raises OSError.
    """
    inside = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fresh = f".{name}"  # readers take no hidden files
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fresh, dir_fd=inside)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(fresh, flags, 0o600, dir_fd=inside), "wb") as file:
            owner = os.fstat(inside)
            if owner.st_uid != os.geteuid():
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            file.write(content)
        os.replace(fresh, name, src_dir_fd=inside, dst_dir_fd=inside)
    finally:
        os.close(inside)


def lives(pid: int) -> bool:
    """Whether a process with this pid exists."""
    return os.path.exists(f"/proc/{pid}")


def _folders(root: str, service: str) -> Iterator[str]:
    """Yields the folders of a service, one per user that it has run as."""
    for folder in _listed(root):
        if _service_of(folder) == service:
            yield os.path.join(root, folder)


def _service_of(folder: str) -> str:
    return folder.partition(USER_MARK)[0]


def _listed(folder: str) -> list[str]:
    """Returns the names in a folder; none if it cannot be read."""
    try:
        return os.listdir(folder)
    except OSError:
        return []
