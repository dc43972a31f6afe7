"""Apps' own metrics (prometheus_client's multiprocess mode): each process of a service writes files
into the service's folder, and all are shown as one. Files of services are not trusted: each is
checked and copied into a private folder before it is read. Those of ended processes are folded into
one per type, so that counters stay and the folder does not grow; their gauges vanish. A copy of the
fold is in the service's folder: an app that shows its metrics by itself counts on, too.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import struct
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.samples import Sample

from servd.core.quick_dataclass import dataclass
from servd.daemon.metrics.folder import FOLDED, files, lives, publish

BUDGET_BYTES = 16 * 2**20
"""Bytes of all files of one service that are read; files beyond them are left out."""

BUDGET_FILES = 4096
"""Files of one service that are looked at."""

RESERVED = "servd_"
"""Prefix of servd's own names."""

_NOT_IN_NAMES = re.compile(r'["\\\n\r{}\s]')
_LENGTH = struct.Struct("i")
_VALUES = struct.Struct("dd")
_HEAD_BYTES = 8


class AppMetrics:
    """The metrics of all apps. `folder` holds one folder per service; `private` is the daemon's."""

    def __init__(self, folder: str, private: str) -> None:
        self.folder = folder
        self.private = private
        self._reading = threading.Lock()

    def families(self, service: str) -> list[Metric]:
        """Returns the metrics of one service. Raises ValueError for an invalid name or label."""
        ours = os.path.join(self.private, service)
        with self._reading:
            found = []
            for kind, pid, content in self._living(service):
                os.makedirs(ours, 0o700, exist_ok=True)
                found.append(os.path.join(ours, f"{kind}_{pid}.db"))
                with open(found[-1], "wb") as file:
                    file.write(content)
            for kind in ("counter", "histogram", "summary"):
                folded = os.path.join(ours, f"{kind}_{FOLDED}.db")
                if os.path.exists(folded):
                    found.append(folded)
            if not found:
                return []
            return list(MultiProcessCollector.merge(found))  # type: ignore[no-untyped-call]

    def fold(self, service: str) -> None:
        """Folds the files of ended processes. Raises OSError, and keeps the files then."""
        with self._reading:
            list(self._living(service))

    def _living(self, service: str) -> Iterator[tuple[str, int, bytes]]:
        """Yields the files of processes that live; folds the others."""
        left = ended_left = BUDGET_BYTES
        for path, kind, pid in islice(files(self.folder, service), BUDGET_FILES):
            alive = lives(pid)  # checked first, so that what is written until the end counts
            if alive:
                content = _content(path, left)
                if content is not None:
                    left -= len(content)
                    yield kind, pid, content
                continue
            if ended_left <= 0:
                continue  # the next look folds it
            content = _content(path, BUDGET_BYTES)
            ended_left -= len(content or b"")
            if content is not None:
                self._fold(service, kind, content)
            for file in (path, os.path.join(self.private, service, os.path.basename(path))):
                with contextlib.suppress(OSError):
                    os.unlink(file)

    def _fold(self, service: str, kind: str, content: bytes) -> None:
        if kind.startswith("gauge"):
            return
        folder = os.path.join(self.private, service)
        os.makedirs(folder, 0o700, exist_ok=True)
        file = os.path.join(folder, f"{kind}_{FOLDED}.db")
        sums: dict[str, _Entry] = {}
        with contextlib.suppress(FileNotFoundError), open(file, "rb") as folded:
            sums = {entry.key: entry for entry in _entries(folded.read())}
        size = sum(len(entry.content) for entry in sums.values())
        for entry in _entries(content):
            known = sums.get(entry.key)
            if known is not None:
                sums[entry.key] = entry.with_value(known.value + entry.value)
            elif size + len(entry.content) <= BUDGET_BYTES:
                sums[entry.key] = entry
                size += len(entry.content)
        # written, not mapped: a full disk is an error then, not a SIGBUS
        folded_content = _file_of(sums.values())
        with open(f"{file}.new", "wb") as fresh:
            fresh.write(folded_content)
        os.replace(f"{file}.new", file)
        publish(self.folder, service, kind, folded_content)


def _content(path: str, most: int) -> bytes | None:
    """Returns the used part of a file; None unless it is a valid one of at most `most` bytes. A
    file with a second name may be any number of them, and one of another user.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            return None
        head = file.read(_HEAD_BYTES)
        if len(head) < _HEAD_BYTES:
            return None
        (used,) = _LENGTH.unpack_from(head)
        if not _HEAD_BYTES < used <= most:
            return None
        content = head + file.read(used - _HEAD_BYTES)
    if len(content) < used:
        return None
    try:
        kept = [entry for entry in _entries(content[:used]) if not entry.is_reserved]
    except (ValueError, RecursionError, struct.error):
        return None
    return _file_of(kept) if kept else None


def _file_of(entries: Iterable[_Entry]) -> bytes:
    body = b"".join(entry.content for entry in entries)
    return _LENGTH.pack(_HEAD_BYTES + len(body)) + bytes(_HEAD_BYTES - _LENGTH.size) + body


@dataclass(frozen=True, slots=True)
class _Entry:
    """One value of a file; `content` is the whole entry."""

    key: str
    value: float
    content: bytes
    is_reserved: bool

    def with_value(self, value: float) -> _Entry:
        """Returns the same entry with another value and no timestamp."""
        content = self.content[: -_VALUES.size] + _VALUES.pack(value, 0.0)
        return replace(self, value=value, content=content)


def _entries(content: bytes) -> Iterator[_Entry]:
    """Yields the entries of a file. Raises ValueError and struct.error if it is damaged."""
    position = _HEAD_BYTES
    while position < len(content):
        start = position
        (length,) = _LENGTH.unpack_from(content, position)
        if length <= 0:
            raise ValueError("entry without a key")
        key = content[position + 4 : position + 4 + length].decode()
        position += 4 + length + (8 - (length + 4) % 8)
        value, _ = _VALUES.unpack_from(content, position)
        position += _VALUES.size
        sample = _sample_of(json.loads(key))
        yield _Entry(key, value, content[start:position], sample.startswith(RESERVED))


def _sample_of(key: Any) -> str:
    """Returns the sample's name. Raises ValueError unless `key` is prometheus_client's: a metric's
    name, a sample's name that begins with it, labels and a help text, all fit to be shown.
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
            raise ValueError("not a prometheus_client key")


def labelled(family: Metric, service: str) -> Metric:
    """Labels metrics with `service`; an app's own becomes `exported_service` (as in Prometheus)."""
    found = Metric(family.name, family.documentation, family.type)
    for sample in family.samples:
        labels = dict(sample.labels)
        if "service" in labels:
            labels["exported_service"] = labels.pop("service")
        found.samples.append(Sample(sample.name, {"service": service, **labels}, sample.value))
    return found
