"""Users and groups of this machine, and the identity that a process starts with. Impure."""

from __future__ import annotations

import grp
import os
import pwd
from typing import Any

from servd.plan.host import Account


def running_as(account: Account | None, gid: int | None) -> dict[str, Any]:
    """`subprocess.Popen`'s arguments for whom a process runs as; only root can choose."""
    if os.geteuid() != 0:
        return {}
    options: dict[str, Any] = {}
    if gid is not None:
        options |= {"group": gid, "extra_groups": []}
    if account is not None:
        options |= {"user": account.uid, "extra_groups": list(account.groups)}
    return options


def account(name: str) -> Account | None:
    """The user called `name`, if there is one."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    groups = tuple(os.getgrouplist(name, entry.pw_gid))
    return Account(name, entry.pw_uid, entry.pw_gid, groups, entry.pw_dir)


def group_id(name: str) -> int | None:
    """The id of the group called `name`, if there is one."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None
