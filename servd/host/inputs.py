"""States of the `inputs` of services: files, folders and links, such as the weights of a model."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

MISSING = "missing"

_MOST_FILES = 20_000
"""Files of a folder that count; a model is a few large files."""


def states_of(paths: Iterable[str]) -> dict[str, str]:
    """Returns the state of each path: another one when its content was written, or a link leads
    elsewhere. It is made of names, sizes, times and inodes, for weights can have a hundred
    gigabytes. It begins with the time of the newest file.
    """
    return {path: _state(path) for path in paths}


def _state(path: str) -> str:
    seen = hashlib.sha256(os.fsencode(os.path.realpath(path)))
    newest = None
    for file in _files(path):
        try:
            found = os.stat(file)
        except OSError:
            continue
        newest = max(newest or 0, found.st_mtime_ns)
        about = (found.st_size, found.st_mtime_ns, found.st_ino)
        seen.update(os.fsencode(os.path.relpath(file, path)) + repr(about).encode())
    if newest is None and not os.path.exists(path):
        return MISSING
    time = datetime.fromtimestamp((newest or 0) / 1e9, UTC)
    return f"{time:%Y-%m-%dT%H:%M:%SZ} {seen.hexdigest()[:8]}"


def _files(path: str) -> Iterator[str]:
    """Yields the file, or the files below a folder, in a fixed order."""
    if not os.path.isdir(path):
        yield path
        return
    count = 0
    for folder, folders, files in os.walk(path):
        folders.sort()
        for name in sorted(files):
            yield os.path.join(folder, name)
            count += 1
            if count >= _MOST_FILES:
                return
