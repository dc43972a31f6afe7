"""Access to files with the rights of another user, for root. Impure."""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
import sys
from collections.abc import Iterator

from servd.plan.host import Account


@contextlib.contextmanager
def files_as(account: Account | None) -> Iterator[None]:
    """Uses files with the rights of `account`, in this thread alone (setfsuid(2)). Does nothing for
    None, and where this process is not root.
    """
    if account is None or os.geteuid() != 0 or sys.platform != "linux":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.setfsgid(account.gid)
    libc.setfsuid(account.uid)  # drops the capabilities that pass over permissions, too
    try:
        yield
    finally:
        libc.setfsuid(os.geteuid())
        libc.setfsgid(os.getegid())


def is_changed_by_root_alone(path: str) -> bool:
    """Whether root alone may change what `path` leads to: every folder on the way is root's, and
    nobody else may write in it.
    """
    folder = os.path.dirname(os.path.abspath(path))
    return all(
        _belongs_to_root(step) for way in {folder, os.path.realpath(folder)} for step in _steps(way)
    )


def _steps(path: str) -> Iterator[str]:
    while True:
        yield path
        if path == os.path.dirname(path):
            return
        path = os.path.dirname(path)


def _belongs_to_root(path: str) -> bool:
    try:
        found = os.lstat(path)
    except OSError:
        return False
    others_write = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not stat.S_ISLNK(found.st_mode)
    return found.st_uid == 0 and not others_write
