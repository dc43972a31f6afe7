"""Access to files with the rights of another user, for root. Impure."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from servd.core.path_owner import who_may_change
from servd.plan.host import Account

_SETGROUPS = {"x86_64": 116, "aarch64": 159}
"""The number of the system call, which changes this thread alone: the C library's function changes
all threads of the process (setgroups(2))."""


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
            raise PermissionError(1, "cannot access files as another user")
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
    """The account whose rights open a file (None: this process), and whether to `follow` a link."""

    account: Account | None
    follow: bool


def rights_for(path: str, account: Account | None) -> Rights:
    """Returns how root opens a file of a service of `account` (None: root's own). If another user
    may change a folder on the path: with the rights of the service's user, or of that user.
    """
    found = who_may_change(path)
    if found is None:
        return Rights(None, follow=True)
    if account is not None:
        return Rights(account, follow=True)
    if found.st_uid == 0:  # a folder such as /tmp
        return Rights(None, follow=False)
    owner = Account(str(found.st_uid), found.st_uid, found.st_gid, (), "/")
    return Rights(owner, follow=True)
