"""Users and groups of this machine, and the identity of new processes. Impure."""

from __future__ import annotations

import grp
import os
import pwd
from typing import Any

from servd.plan.host import Account


def running_as(account: Account | None, gid: int | None) -> dict[str, Any]:
    """Returns `subprocess.Popen`'s arguments for user and groups; empty unless root."""
    if os.geteuid() != 0:
        return {}
    options: dict[str, Any] = {}
    if gid is not None:
        options |= {"group": gid, "extra_groups": []}
    if account is not None:
        options |= {"user": account.uid, "extra_groups": list(account.groups)}
    return options


def account(name: str) -> Account | None:
    """Returns the user called `name`, or None."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    groups = tuple(os.getgrouplist(name, entry.pw_gid))
    return Account(name, entry.pw_uid, entry.pw_gid, groups, entry.pw_dir)


def group_id(name: str) -> int | None:
    """Returns the id of the group called `name`, or None."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None
