"""The daemons of this user: each records its process and its configuration in its runtime folder.

A configuration has more than one path where a link leads to it, and a link may be swapped while the
daemon runs: a record holds the path as given, and is compared by where both lead now.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import NamedTuple

from servd.core.basedir import absolute
from servd.core.processes import started_at

_RECORD = os.path.join("private", "servd.pid")


class Instance(NamedTuple):
    """A living daemon. `config` is absolute; "" where no file is its configuration."""

    folder: str
    pid: int
    config: str


def record(folder: str, config: str) -> None:
    """Records that this process uses `folder`, for the configuration `config`. Raises OSError."""
    path = record_of(folder)
    beside = f"{path}.{os.getpid()}"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        lines = (str(os.getpid()), str(started_at(os.getpid()) or 0), config)
        file.write("\n".join(lines).encode(errors="surrogateescape") + b"\n")
    os.rename(beside, path)


def record_of(folder: str) -> str:
    """Returns the path of the record in `folder`."""
    return os.path.join(folder, _RECORD)


def forget(folder: str) -> None:
    """Removes the record of this process."""
    with contextlib.suppress(OSError):
        os.unlink(record_of(folder))


def is_recorded(folder: str) -> bool:
    """Whether `folder` holds the record of this process."""
    found = _read(folder)
    return found is not None and found.pid == os.getpid()


def using(folder: str) -> Instance | None:
    """Returns the living daemon that uses `folder`; None if none is known."""
    return _read(folder)


def running(config: str, parent: str) -> Instance | None:
    """Returns the other living daemon of `config`, by whichever path, that has its runtime folder
    in `parent`; None if there is none.
    """
    real = os.path.realpath(absolute(config))
    try:
        folders = sorted(os.listdir(parent))
    except OSError:
        return None
    for name in folders:
        found = _read(os.path.join(parent, name))
        if found is None or found.pid == os.getpid() or not found.config:
            continue
        if os.path.realpath(found.config) == real:
            return found
    return None


def _read(folder: str) -> Instance | None:
    try:
        descriptor = os.open(record_of(folder), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            if not _is_trusted(os.fstat(descriptor), os.lstat(folder)):
                return None
            pid, started, config = os.fsdecode(file.read(8192)).split("\n")[:3]
        found = Instance(folder, int(pid), config)
        return found if _lives(found.pid, int(started)) else None
    except (OSError, ValueError):
        return None


def _is_trusted(record: os.stat_result, folder: os.stat_result) -> bool:
    """Whether both are this user's, or root's: a stranger may not send us to a daemon of his."""
    ours = (os.geteuid(), 0)
    return stat.S_ISREG(record.st_mode) and record.st_uid in ours and folder.st_uid in ours


def _lives(pid: int, started: int) -> bool:
    """Whether the process runs. Raises OSError if not, where start times are unknown (macOS)."""
    if started:
        return started_at(pid) == started
    os.kill(pid, 0)
    return True
