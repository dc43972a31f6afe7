"""Finds out who can change where a path leads. Impure: it reads owners and modes."""

from __future__ import annotations

import os
import stat

_MOST_LINKS = 40


def who_may_change(path: str) -> os.stat_result | None:
    """Returns the first folder or link on the way to a file that another user owns, otherwise the
    first folder in which others can replace the next step; None if only root can change the way.
    Links are followed one by one, as the kernel does. The file itself is not checked.
    """
    step = _changeable_step(path)
    return None if step is None else step[1]


def changeable_by_others(path: str) -> tuple[str, os.stat_result] | None:
    """Returns what users other than root can change of a file: the step on the way, as in
    `who_may_change`, or the file itself, with its owner and mode. None if nothing, or no such file.
    """
    try:
        step = _changeable_step(path)
        if step is not None:
            return step
        found = os.stat(path)
    except (OSError, ValueError):  # a file on its way, a name that is too long, a NUL
        return None
    by_group = found.st_mode & stat.S_IWGRP and found.st_gid != 0
    if found.st_uid != 0 or by_group or found.st_mode & stat.S_IWOTH:
        return os.path.realpath(path), found
    return None


def _changeable_step(path: str) -> tuple[str, os.stat_result] | None:
    writable: tuple[str, os.stat_result] | None = None
    steps = os.path.abspath(path).split("/")[1:]
    current, links = "/", 0
    while steps:
        folder = os.lstat(current)
        if folder.st_uid != 0:
            return current, folder
        step = steps.pop(0)
        candidate = os.path.dirname(current) if step == ".." else os.path.join(current, step)
        found = _stat_of(candidate)
        sticky_and_ours = found is not None and found.st_uid == 0 and folder.st_mode & stat.S_ISVTX
        if folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky_and_ours:
            writable = writable or (current, folder)
        if found is None:
            return writable
        if not stat.S_ISLNK(found.st_mode):
            current = candidate
            continue
        links += 1
        if links > _MOST_LINKS or found.st_uid != 0:
            return candidate, found
        target = os.readlink(candidate)
        steps = [part for part in target.split("/") if part not in ("", ".")] + steps
        current = "/" if target.startswith("/") else current
    return writable


def _stat_of(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None
