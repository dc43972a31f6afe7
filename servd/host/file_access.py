"""Access to files with the rights of another user, for root. Impure."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import stat
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from servd.plan.host import Account

_SETGROUPS = {"x86_64": 116, "aarch64": 159}
"""The number of the system call, which changes this thread alone: the C library's function changes
all threads of the process (setgroups(2))."""

_MOST_LINKS = 40


@contextlib.contextmanager
def files_as(account: Account | None) -> Iterator[None]:
    """Uses files with the rights of `account`, in this thread alone (setfsuid(2)). Does nothing for
    None, and where this process is not root. Raises PermissionError if that is not possible.
    """
    if account is None or os.geteuid() != 0 or sys.platform != "linux":
        yield
        return
    libc = ctypes.CDLL(None)
    groups = os.getgroups()
    try:
        _set_groups(libc, account.groups)
        libc.setfsgid(account.gid)
        libc.setfsuid(account.uid)  # drops the capabilities that pass over permissions, too
        if libc.setfsuid(-1) != account.uid:
            raise PermissionError(1, "cannot use files as another user")
        yield
    finally:
        libc.setfsuid(os.geteuid())
        libc.setfsgid(os.getegid())
        _set_groups(libc, groups)


def _set_groups(libc: ctypes.CDLL, groups: Sequence[int]) -> None:
    number = _SETGROUPS.get(platform.machine())
    if number is not None:
        libc.syscall(number, len(groups), (ctypes.c_uint32 * len(groups))(*groups))


class Rights(NamedTuple):
    """With whose rights a file is opened; None: this process's own. `follow`: also where it is a
    link.
    """

    account: Account | None
    follow: bool


def rights_for(path: str, account: Account | None) -> Rights:
    """Returns how root opens a file of a service of `account` (None: root's own). If others may
    change the way to it: with the rights of the service's user, or of whoever that is.
    """
    found = _who_may_change(path)
    if found is None:
        return Rights(None, follow=True)
    if account is not None:
        return Rights(account, follow=True)
    if found.st_uid == 0:  # a folder such as /tmp
        return Rights(None, follow=False)
    owner = Account(str(found.st_uid), found.st_uid, found.st_gid, (), "/")
    return Rights(owner, follow=True)


def _who_may_change(path: str) -> os.stat_result | None:
    """Returns the first folder or link on the way to a file that is another user's, else the first
    in which others may put another in the place of the next step; None if root alone may change
    the way. Links are followed one by one, as the kernel does.
    """
    writable: os.stat_result | None = None
    steps = os.path.abspath(path).split("/")[1:]
    current, links = "/", 0
    while steps:
        folder = os.lstat(current)
        if folder.st_uid != 0:
            return folder
        step = steps.pop(0)
        candidate = os.path.dirname(current) if step == ".." else os.path.join(current, step)
        found = _stat_of(candidate)
        sticky_and_ours = found is not None and found.st_uid == 0 and folder.st_mode & stat.S_ISVTX
        if folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky_and_ours:
            writable = writable or folder
        if found is None:
            return writable
        if not stat.S_ISLNK(found.st_mode):
            current = candidate
            continue
        links += 1
        if links > _MOST_LINKS or found.st_uid != 0:
            return found
        target = os.readlink(candidate)
        steps = [part for part in target.split("/") if part not in ("", ".")] + steps
        current = "/" if target.startswith("/") else current
    return writable


def _stat_of(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None
