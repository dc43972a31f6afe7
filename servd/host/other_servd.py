"""Detects the other project named servd on the Python package index: it has the same file names."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable

_OTHER = re.compile(r"servd-(\d[^-]*)\.(dist-info|egg-info)")


def other_servd(folders: Iterable[str] | None = None) -> str:
    """Returns the version of the other servd in this environment, or ""."""
    for folder in sys.path if folders is None else folders:
        try:
            names = os.listdir(folder or ".")
        except OSError:
            continue
        for name in names:
            if match := _OTHER.fullmatch(name):
                return match[1]
    return ""


def advice(version: str) -> str:
    """Returns how to remove it."""
    remove = f"{sys.executable} -m pip uninstall servd"
    return (
        f"another project's servd {version} is installed here: run `{remove}`, then reinstall this"
    )
