"""The daemons of this user: each records its process, its configuration and the address of its
admin API in its runtime folder.

A configuration has several paths if a link points to it, and a link can be swapped while the daemon
runs: a record contains the path as given, and comparisons resolve both paths now.
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
    """What a daemon publishes about itself. `config` is absolute; "" without a configuration file.
    `admin` is as in `--admin`; "" while it starts. `is_configured`: its configuration sets the
    runtime folder.
    """

    config: str
    admin: str = ""
    is_configured: bool = False


NOT_TOLD = Record("")
"""The record before a daemon publishes anything."""


class Instance(NamedTuple):
    """A running daemon."""

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
    """Whether `folder` contains the record of this process."""
    found = _read(folder)
    return found is not None and found.pid == os.getpid()


def using(folder: str) -> Instance | None:
    """Returns the running daemon that uses `folder`, or None."""
    return _read(folder)


def running(config: str, parent: str) -> Instance | None:
    """Returns the other running daemon of `config`, by any of its paths, whose runtime folder is in
    `parent`; or None.
    """
    try:
        names = sorted(os.listdir(parent))
    except OSError:
        return None
    return _first_of(config, (os.path.join(parent, name) for name in names))


def running_anywhere(config: str) -> Instance | None:
    """Returns the other running daemon of `config`, with any runtime folder: every daemon keeps its
    folder open. Linux only; None on other systems.
    """
    return _first_of(config, _folders_of_processes())


def everywhere() -> list[Instance]:
    """Returns the running daemons of this user, and of root for root. Empty except on Linux."""
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
    """Yields the folders with a record that processes of this user have open."""
    with contextlib.suppress(OSError):
        for pid in filter(str.isdecimal, os.listdir("/proc")):
            with contextlib.suppress(OSError):  # it has exited, or belongs to another user
                if b"servd" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                    continue
                for descriptor in os.listdir(f"/proc/{pid}/fd"):
                    target = _target(f"/proc/{pid}/fd/{descriptor}")
                    if target.startswith("/") and os.path.lexists(record_of(target)):
                        yield target


def _target(descriptor: str) -> str:
    """Returns the target of a descriptor of a process; "" if it is closed."""
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
    """Whether both belong to this user or root: others must not redirect clients."""
    ours = (os.geteuid(), 0)
    return stat.S_ISREG(record.st_mode) and record.st_uid in ours and folder.st_uid in ours


def _lives(pid: int, started: int) -> bool:
    """Whether the process runs. Raises OSError if not, where start times are unknown (macOS)."""
    if started:
        return started_at(pid) == started
    os.kill(pid, 0)
    return True
