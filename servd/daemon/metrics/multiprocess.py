"""What apps count themselves with prometheus_client, in its multiprocess mode: each process of a
service writes files into the service's folder, and all of them together are shown as one.

The files are a service's to write, so nothing in them is trusted: each is checked and copied into a
private folder before it is read. Those of processes that have ended are folded into one for each
type, so that counters stay and the folder does not grow; gauges of the dead vanish.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.samples import Sample

from servd.daemon.metrics.folder import FOLDED, files, lives

LARGEST_FILE = 16 * 1024 * 1024
"""Bytes of one file beyond which it is left out."""

RESERVED = "servd_"
"""Names that begin like this are servd's own."""

_NOT_IN_NAMES = re.compile(r'["\\\n\r{}\s]')
_LENGTH = struct.Struct("i")
_VALUES = struct.Struct("dd")
_HEAD = 8


class AppMetrics:
    """The metrics of all services' apps. `folder` holds one folder for each, `private` is ours."""

    def __init__(self, folder: str, private: str) -> None:
        self.folder = folder
        self.private = private
        self._reading = threading.Lock()

    def families(self, service: str) -> list[Metric]:
        """The metrics of one service. Raises ValueError when a name or label is not one."""
        with self._reading:
            return self._families(service)

    def fold(self, service: str) -> None:
        """Takes over what processes have left that have ended. Raises OSError, and keeps that."""
        with self._reading:
            list(self._living(service))

    def _families(self, service: str) -> list[Metric]:
        ours = os.path.join(self.private, service)
        found = [
            self._copy(ours, f"{kind}_{pid}.db", content)
            for kind, pid, content in self._living(service)
        ]
        for kind in ("counter", "histogram", "summary"):
            folded = os.path.join(ours, f"{kind}_{FOLDED}.db")
            if os.path.exists(folded):
                found.append(folded)
        if not found:
            return []
        return list(MultiProcessCollector.merge(found))  # type: ignore[no-untyped-call]

    def _living(self, service: str) -> Iterator[tuple[str, int, bytes]]:
        """What the files of processes that live say; those of the others are folded."""
        for path, kind, pid in files(self.folder, service):
            alive = lives(pid)  # asked first: what is written until the end is not missed
            content = _content(path)
            if alive:
                if content is not None:
                    yield kind, pid, content
                continue
            if content is not None:
                self._fold(os.path.join(self.private, service), kind, content)
            for file in (path, os.path.join(self.private, service, os.path.basename(path))):
                with contextlib.suppress(OSError):
                    os.unlink(file)

    def _copy(self, folder: str, name: str, content: bytes) -> str:
        os.makedirs(folder, 0o700, exist_ok=True)
        path = os.path.join(folder, name)
        with open(path, "wb") as file:
            file.write(content)
        return path

    def _fold(self, folder: str, kind: str, content: bytes) -> None:
        if kind.startswith("gauge"):
            return
        os.makedirs(folder, 0o700, exist_ok=True)
        file = os.path.join(folder, f"{kind}_{FOLDED}.db")
        sums = {entry.key: entry for entry in _entries(_bytes_of(file))}
        for entry in _entries(content):
            known = sums.get(entry.key)
            sums[entry.key] = (
                entry if known is None else entry.with_value(known.value + entry.value)
            )
        body = b"".join(entry.content for entry in sums.values())
        # written, not mapped: where the disk is full, that is an error, and no SIGBUS
        with open(f"{file}.new", "wb") as fresh:
            fresh.write(_LENGTH.pack(_HEAD + len(body)) + bytes(_HEAD - _LENGTH.size) + body)
        os.replace(f"{file}.new", file)


def _bytes_of(file: str) -> bytes:
    """What has been folded so far."""
    try:
        with open(file, "rb") as opened:
            return opened.read()
    except FileNotFoundError:
        return b""


def _content(path: str) -> bytes | None:
    """What a file says, as far as it is in use; None unless it is what it should be."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST_FILE:
            return None
        content = file.read(LARGEST_FILE)
    if len(content) < _HEAD:
        return None
    (used,) = _LENGTH.unpack_from(content)
    if not _HEAD < used <= len(content):
        return None
    try:
        kept = [entry.content for entry in _entries(content[:used]) if not entry.is_reserved]
    except (ValueError, RecursionError, struct.error):
        return None
    body = b"".join(kept)
    return _LENGTH.pack(_HEAD + len(body)) + bytes(_HEAD - _LENGTH.size) + body if kept else None


@dataclass(frozen=True, slots=True)
class _Entry:
    """One value of a file; `content` is all of it as it stands there."""

    key: str
    value: float
    content: bytes
    is_reserved: bool

    def with_value(self, value: float) -> _Entry:
        """The same, with another value, of no particular time."""
        content = self.content[: -_VALUES.size] + _VALUES.pack(value, 0.0)
        return replace(self, value=value, content=content)


def _entries(content: bytes) -> Iterator[_Entry]:
    """Raises ValueError and struct.error when the content is damaged."""
    position = _HEAD
    while position < len(content):
        start = position
        (length,) = _LENGTH.unpack_from(content, position)
        if length <= 0:
            raise ValueError("an entry without a key")
        key = content[position + 4 : position + 4 + length].decode()
        position += 4 + length + (8 - (length + 4) % 8)
        value, _ = _VALUES.unpack_from(content, position)
        position += _VALUES.size
        sample = _sample_of(json.loads(key))
        yield _Entry(key, value, content[start:position], sample.startswith(RESERVED))


def _sample_of(key: Any) -> str:
    """The sample's name. Raises ValueError unless `key` is one of prometheus_client: a metric's
    name, a sample's name that begins with it, labels and a help text, all of them fit to be shown.
    """
    match key:
        case [str(metric), str(sample), dict(labels), str()]:
            names = [metric, sample, *labels]
            texts = all(isinstance(text, str) for text in (*labels, *labels.values()))
            if not texts or not sample.startswith(metric):
                raise ValueError("not a metric")
            if any(_NOT_IN_NAMES.search(name) or not name for name in names):
                raise ValueError("not a name")
            return sample
        case _:
            raise ValueError("not a key of prometheus_client")


def labelled(family: Metric, service: str) -> Metric:
    """The same metrics, each with the label `service`; one that the app has of its own becomes
    `exported_service`, as Prometheus calls it.
    """
    found = Metric(family.name, family.documentation, family.type)
    for sample in family.samples:
        labels = dict(sample.labels)
        if "service" in labels:
            labels["exported_service"] = labels.pop("service")
        found.samples.append(Sample(sample.name, {"service": service, **labels}, sample.value))
    return found
