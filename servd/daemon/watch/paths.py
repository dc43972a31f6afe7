"""Finds the files that a configuration depends on, where links lead, and what they contain."""

from __future__ import annotations

import glob
import hashlib
import os

from servd.config.find import EXTENSIONS
from servd.config.load import Loaded
from servd.config.request_files import request_files_of
from servd.core.basedir import absolute
from servd.core.exhaustion import glob_or_raise, is_exhaustion
from servd.core.quick_dataclass import dataclass
from servd.core.regular_file import open_regular

_MOST_LINKS = 40
_READ_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class WatchList:
    """Absolute paths of files, and globs whose matches are included."""

    files: frozenset[str] = frozenset()
    patterns: frozenset[str] = frozenset()

    @property
    def folders(self) -> frozenset[str]:
        """Folders in which a change of any file shows, with those of symbolic links on the way
        (Kubernetes swaps a ConfigMap's link), or the nearest existing folder above.
        """
        paths = (*self.files, *self.patterns)
        return frozenset(nearest_folder(folder) for path in paths for folder in folders_of(path))

    def contents(self) -> dict[str, bytes]:
        """Returns a digest of each file, or why it cannot be read. Raises OSError at exhaustion."""
        found = {path for pattern in self.patterns for path in glob_or_raise(pattern)}
        return {path: _content(path) for path in self.files | found}


def of_config(loaded: Loaded) -> WatchList:
    """Returns what a configuration was read from, with the env and request files that it names."""
    if loaded.path.startswith("<"):
        return WatchList()
    config = loaded.config
    services = config.services.values()
    tables = (config.defaults, *services)
    env_files = {file.path for table in tables for file in table.env_file}
    named = env_files | _of_clients(loaded) | request_files_of(config)
    files = {absolute(path) for path in (*loaded.files, *loaded.read, *named)}
    patterns = set(loaded.patterns)
    if os.path.isdir(absolute(loaded.path)):
        folder = glob.escape(absolute(loaded.path))
        patterns |= {os.path.join(folder, f"*{extension}") for extension in EXTENSIONS}
    else:
        files.add(absolute(loaded.path))
    return WatchList(frozenset(files), frozenset(patterns))


def of_certificates(loaded: Loaded) -> WatchList:
    """Returns certificates and keys of the services with `rotate`."""
    files: set[str] = set()
    for service in loaded.config.services.values():
        if service.tls is not None and service.tls.rotate and not service.external:
            files |= {service.tls.certfile, service.tls.keyfile}
    return WatchList(frozenset(absolute(path) for path in files - {""}))


def _of_clients(loaded: Loaded) -> set[str]:
    """Returns the files by which callers verify services elsewhere: they read them at their start,
    so new content rolls them.
    """
    found = [s.tls for s in loaded.config.services.values() if s.external and s.tls is not None]
    return {f for tls in found for f in (tls.ca_certs, tls.certfile, tls.keyfile) if f}


def folders_of(path: str) -> set[str]:
    """Returns the folders of the file at `path` and of every link that leads there."""
    found: set[str] = set()
    waiting = _steps(absolute(path))
    current = "/"
    links = 0
    while waiting:
        step = waiting.pop(0)
        if any(sign in step for sign in "*?["):
            break  # matches show in the folder before
        candidate = os.path.join(current, step)
        if os.path.islink(candidate) and links < _MOST_LINKS:
            links += 1
            found.add(current)
            target = os.path.join(current, os.readlink(candidate))
            waiting = _steps(os.path.normpath(target)) + waiting
            current = "/"
        elif waiting:
            current = candidate
    found.add(current)
    return found


def nearest_folder(folder: str) -> str:
    """Returns the folder, or the nearest existing one above it."""
    while not os.path.isdir(folder) and folder != "/":
        folder = os.path.dirname(folder)
    return folder


def _steps(path: str) -> list[str]:
    return [step for step in path.split("/") if step]


def _content(path: str) -> bytes:
    try:
        with open_regular(path) as file:
            return hashlib.sha256(file.read(_READ_BYTES)).digest()
    except OSError as error:
        if is_exhaustion(error):
            raise
        return str(error.errno).encode()
