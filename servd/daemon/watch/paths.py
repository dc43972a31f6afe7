"""Which files a configuration depends on, where they really are, and what is in them now."""

from __future__ import annotations

import glob
import hashlib
import os
from dataclasses import dataclass

from servd.config.find import EXTENSIONS
from servd.config.load import Loaded
from servd.core.basedir import absolute
from servd.core.exhaustion import glob_or_raise, is_exhaustion

_MOST_LINKS = 40
_LARGEST = 16 * 2**20


@dataclass(frozen=True, slots=True)
class WatchList:
    """Absolute paths of files, and globs whose matches count too."""

    files: frozenset[str] = frozenset()
    patterns: frozenset[str] = frozenset()

    @property
    def folders(self) -> frozenset[str]:
        """Folders in which a change of any of the files shows: also those of symbolic links on the
        way, since a link can be swapped for another (as Kubernetes does with a ConfigMap), and for
        one that is not there yet, the folder that it would be made in.
        """
        found: set[str] = set()
        for path in (*self.files, *self.patterns):
            found |= folders_of(path)
        return frozenset(_there(folder) for folder in found)

    def contents(self) -> dict[str, bytes]:
        """A digest of what is in each file now, or why it cannot be read.

        Raises OSError where a shortage (of descriptors) keeps that from being known.
        """
        found = {path for pattern in self.patterns for path in glob_or_raise(pattern)}
        return {path: _content(path) for path in self.files | found}


def of_config(loaded: Loaded) -> WatchList:
    """What a configuration was read from, with the env files that it names."""
    if loaded.path.startswith("<"):
        return WatchList()
    config = loaded.config
    services = config.services.values()
    env_files = {config.defaults.env_file, *(service.env_file for service in services)} - {""}
    files = {absolute(path) for path in (*loaded.files, *loaded.read, *env_files)}
    patterns = set(loaded.patterns)
    if os.path.isdir(absolute(loaded.path)):
        folder = glob.escape(absolute(loaded.path))
        patterns |= {os.path.join(folder, f"*{extension}") for extension in EXTENSIONS}
    else:
        files.add(absolute(loaded.path))
    return WatchList(frozenset(files), frozenset(patterns))


def of_certificates(loaded: Loaded) -> WatchList:
    """Certificates and keys of the services that rotate theirs."""
    files: set[str] = set()
    for service in loaded.config.services.values():
        if service.tls is not None and service.tls.rotate:
            files |= {service.tls.certfile, service.tls.keyfile}
    return WatchList(frozenset(absolute(path) for path in files - {""}))


def folders_of(path: str) -> set[str]:
    """The folder of the file at `path`, and those of every link that leads there."""
    found: set[str] = set()
    waiting = _steps(absolute(path))
    current = "/"
    links = 0
    while waiting:
        step = waiting.pop(0)
        if any(sign in step for sign in "*?["):
            break  # whatever matches shows in the folder before
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


def _there(folder: str) -> str:
    """The folder, or the nearest one above it that there is."""
    while not os.path.isdir(folder) and folder != "/":
        folder = os.path.dirname(folder)
    return folder


def _steps(path: str) -> list[str]:
    return [step for step in path.split("/") if step]


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read(_LARGEST)).digest()
    except OSError as error:
        if is_exhaustion(error):
            raise
        return str(error.errno).encode()
