"""Warns about files of root that others can change: who changes them can act as root. Impure."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterable, Iterator

from servd.core.basedir import absolute
from servd.core.diagnostics import Diagnostic, Place
from servd.core.path_owner import changeable_by_others


def check_trust(files: Iterable[str], others: Iterable[str]) -> Iterator[Diagnostic]:
    """Yields a warning for each file of the configuration, and each of the `others` that it names
    (which may be patterns), that a user other than root can change. Nothing unless run as root.
    """
    if os.geteuid() != 0:
        return
    said: set[str] = set()
    for file in (*files, *others):
        found = None if file.startswith("<") else changeable_by_others(absolute(file))
        if found is None or found[0] in said:
            continue
        step, status = found
        said.add(step)
        message = f"servd runs as root, but {_whoever(status)} can change {step}"
        hint = f"chown root {step}" if status.st_uid else f"chmod go-w {step}"
        yield Diagnostic(Place(file), message, hint=hint, severity="warning", code="changeable")


def _whoever(status: os.stat_result) -> str:
    if status.st_uid != 0:
        try:
            return f"user {pwd.getpwuid(status.st_uid).pw_name}"
        except KeyError:
            return f"user {status.st_uid}"
    return "every user" if status.st_mode & stat.S_IWOTH else f"group {status.st_gid}"
