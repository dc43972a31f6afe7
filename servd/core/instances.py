"""The daemons of this user: each records its process, its configuration and the address of its
admin API in its runtime folder.

A configuration has more than one path where a link leads to it, and a link may be swapped while the
daemon runs: a record holds the path as given, and is compared by where both lead now.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from servd.core.basedir import absolute
from servd.core.processes import started_at

_RECORD = os.path.join("private", "servd.pid")
_CONFIGURED = "configured"


NO_ADMIN = "none"
"""The address of a disabled admin API."""


class Record(NamedTuple):
    """What a daemon tells of itself. `config` is absolute; "" where no file is its configuration.
    `admin` is as in `--admin`; "" while it starts. `is_configured`: its configuration names the
    runtime folder.
    """

    config: str
    admin: str = ""
    is_configured: bool = False


NOT_TOLD = Record("")
"""What is known before a daemon tells anything."""


class Instance(NamedTuple):
    """A living daemon."""

    folder: str
    pid: int
    told: Record


def record(folder: str, told: Record) -> None:
    """Records that this process uses `folder`. Raises OSError."""
    path = record_of(folder)
    beside = f"{path}.{os.getpid()}"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        started = started_at(os.getpid()) or 0
        where = _CONFIGURED if told.is_configured else ""
        lines = (str(os.getpid()), str(started), told.config, told.admin, where)
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
    try:
        names = sorted(os.listdir(parent))
    except OSError:
        return None
    return _first_of(config, (os.path.join(parent, name) for name in names))


def running_anywhere(config: str) -> Instance | None:
    """Returns the other living daemon of `config`, wherever its runtime folder is: every daemon
    holds its folder open. Linux tells; elsewhere the answer is None.
    """
    return _first_of(config, _folders_of_processes())


def everywhere() -> list[Instance]:
    """Returns the living daemons of this user, and of root for root. Linux tells; elsewhere there
    are none.
    """
    found = {folder: _read(folder) for folder in _folders_of_processes()}
    return sorted((each for each in found.values() if each is not None), key=lambda each: each.pid)


def _first_of(config: str, folders: Iterable[str]) -> Instance | None:
    real = os.path.realpath(absolute(config))
    for folder in folders:
        found = _read(folder)
        if found is None or found.pid == os.getpid() or not found.told.config:
            continue
        if os.path.realpath(found.told.config) == real:
            return found
    return None


def _folders_of_processes() -> Iterator[str]:
    """Yields the folders with a record that processes of this user hold open."""
    with contextlib.suppress(OSError):
        for pid in filter(str.isdecimal, os.listdir("/proc")):
            with contextlib.suppress(OSError):  # it has ended, or is a stranger's
                if b"servd" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                    continue
                for descriptor in os.listdir(f"/proc/{pid}/fd"):
                    target = _target(f"/proc/{pid}/fd/{descriptor}")
                    if target.startswith("/") and os.path.lexists(record_of(target)):
                        yield target


def _target(descriptor: str) -> str:
    """Returns what a descriptor of a process is open on; "" once it is closed."""
    try:
        return os.readlink(descriptor)
    except OSError:
        return ""


def _read(folder: str) -> Instance | None:
    try:
        descriptor = os.open(record_of(folder), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            if not _is_trusted(os.fstat(descriptor), os.lstat(folder)):
                return None
            lines = os.fsdecode(file.read(8192)).split("\n")
        pid, started, config, admin, where = [*lines, "", ""][:5]  # an older servd writes three
        found = Instance(folder, int(pid), Record(config, admin, where == _CONFIGURED))
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
