"""A worker's counters in shared memory, which the daemon reads even after the worker was killed: an
array of 64-bit words, each with one writer and so without locks. Standard library only.
"""

from __future__ import annotations

import mmap
import os
import struct
from bisect import bisect_left
from collections.abc import Sequence
from time import process_time
from typing import NamedTuple

METHODS = (
    "GET", "POST", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "QUERY",
    "_OTHER",
)  # fmt: skip
"""Counted methods; any other is `_OTHER` (OpenTelemetry's name), so that a client cannot create new
series with invented methods."""

REASONS = ("concurrency", "body")
"""Reasons of a rejection: `limits.concurrency` (and the queue) are full, or the body is larger than
`limits.body`."""

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the duration buckets in seconds; one more bucket holds longer durations."""

_CODES = 500
_FIRST_CODE = 100

IN_FLIGHT, QUEUED, WEBSOCKETS, STUCK = range(4)
_DROPPED, _SECONDS = 4, 5
PARTS = 6
"""Word that a worker counts the parts of its answers in, without the last part of each."""
_REJECTED = 8
_ERRORS = 14
_BUCKETS = 16
_WORK = 32
_MATRIX = 64
_WORDS = _MATRIX + len(METHODS) * _CODES
SIZE = -(-_WORDS * 8 // mmap.PAGESIZE) * mmap.PAGESIZE
"""Bytes of a block; only written pages take memory."""

assert _REJECTED + len(REASONS) <= _ERRORS
assert _BUCKETS + len(BOUNDS) + 1 <= _WORK

_OFFSETS = {method: _MATRIX + row * _CODES - _FIRST_CODE for row, method in enumerate(METHODS)}
_OTHER = _OFFSETS["_OTHER"]
_EMPTY_ROW = bytes(_CODES * 8)
_WORK_FORMAT = "=6d"
_ANSWERS_FORMAT = f"={_BUCKETS - _ERRORS + len(BOUNDS) + 1}Q"


_CPU_SECONDS = 0.05
"""Interval of the readings of a worker's CPU time."""

_IDLE_SECONDS = 1.0
"""Interval without requests after which the CPU time was not spent on them."""


class Work(NamedTuple):
    """What the requests of an app needed, without those of health probes and those that were
    refused: their number, the seconds that they were served and the sum of their squares, the
    seconds that they waited for a place (`limits.concurrency`), and the CPU time of `measured` of
    them.
    """

    requests: float = 0.0
    seconds: float = 0.0
    squares: float = 0.0
    waited: float = 0.0
    cpu: float = 0.0
    measured: float = 0.0


class Counters:
    """The worker's side of its block."""

    def __init__(self, descriptor: int | None = None) -> None:
        """Uses the memory of `descriptor`, which is closed; without one, private memory."""
        memory = mmap.mmap(-1 if descriptor is None else descriptor, SIZE)
        if descriptor is not None:
            os.close(descriptor)
        self._words = memoryview(memory).cast("Q")
        self._sums = memoryview(memory).cast("d")
        self._counts = [0] * _WORDS  # a copy of the words that is faster to read
        self._seconds = 0.0
        self._work = [0.0] * len(Work._fields)
        self._cpu_at = self._cpu = self._cpu_requests = 0.0

    def answered(self, method: str, status: int, seconds: float) -> None:
        """Counts a request that was answered after `seconds`."""
        counts, words = self._counts, self._words
        bucket = _BUCKETS + bisect_left(BOUNDS, seconds)
        words[bucket] = counts[bucket] = counts[bucket] + 1
        self._sums[_SECONDS] = self._seconds = self._seconds + seconds
        if 100 <= status < 600:
            cell = _OFFSETS.get(method, _OTHER) + status
            words[cell] = counts[cell] = counts[cell] + 1
            if status >= 400:
                word = _ERRORS + (status >= 500)
                words[word] = counts[word] = counts[word] + 1

    def worked(self, seconds: float, waited: float, now: float) -> None:
        """Counts a request that was served for `seconds` until `now` and had `waited` before."""
        work, sums = self._work, self._sums
        sums[_WORK] = work[0] = work[0] + 1
        sums[_WORK + 1] = work[1] = work[1] + seconds
        sums[_WORK + 2] = work[2] = work[2] + seconds * seconds
        if waited:
            sums[_WORK + 3] = work[3] = work[3] + waited
        if now - self._cpu_at >= _CPU_SECONDS:
            self._measure_cpu(now)

    def _measure_cpu(self, now: float) -> None:
        work, sums = self._work, self._sums
        cpu = process_time()
        if now - self._cpu_at < _IDLE_SECONDS:
            sums[_WORK + 4] = work[4] = work[4] + cpu - self._cpu
            sums[_WORK + 5] = work[5] = work[5] + work[0] - self._cpu_requests
        self._cpu_at, self._cpu, self._cpu_requests = now, cpu, work[0]

    def rejected(self, reason: str) -> None:
        """Counts a rejected request."""
        self._words[_REJECTED + REASONS.index(reason)] += 1

    def dropped(self, lines: int) -> None:
        """Counts dropped lines of the log."""
        self._words[_DROPPED] += lines

    @property
    def good(self) -> float:
        """Number of requests that the app has answered, not with 5xx. Nothing is counted for it."""
        rejected = self._words[_REJECTED + REASONS.index("concurrency")]
        return self._work[0] - (self._counts[_ERRORS + 1] - rejected)

    @property
    def gauges(self) -> memoryview[int]:
        """The gauges, for writing: `gauges[IN_FLIGHT] = 3`."""
        return self._words


class Answers(NamedTuple):
    """Answered requests: those with a status of 4xx, those of 5xx, and all by duration."""

    client_errors: int
    server_errors: int
    buckets: Sequence[int]

    @property
    def total(self) -> int:
        """Number of all."""
        return sum(self.buckets)


class Totals:
    """The sums of one or more blocks."""

    def __init__(self) -> None:
        self.dropped = 0
        self.seconds = 0.0
        self.errors = [0, 0]
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.rejected = dict.fromkeys(REASONS, 0)
        self.requests: dict[tuple[str, int], int] = {}
        self.work = Work()

    @property
    def answers(self) -> Answers:
        """Answered requests."""
        return Answers(self.errors[0], self.errors[1], self.buckets)

    def add(self, other: Totals) -> None:
        """Adds the sums of `other`."""
        self.dropped += other.dropped
        self.seconds += other.seconds
        self.errors = [a + b for a, b in zip(self.errors, other.errors, strict=True)]
        self.buckets = [a + b for a, b in zip(self.buckets, other.buckets, strict=True)]
        for reason, count in other.rejected.items():
            self.rejected[reason] += count
        for key, count in other.requests.items():
            self.requests[key] = self.requests.get(key, 0) + count
        self.work = Work(*(a + b for a, b in zip(self.work, other.work, strict=True)))


class CounterView:
    """The daemon's side of a block."""

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, SIZE, prot=mmap.PROT_READ)

    def gauge(self, word: int) -> int:
        """Returns the current value of `IN_FLIGHT`, `QUEUED`, `WEBSOCKETS` or `STUCK`."""
        return int(struct.unpack_from("=Q", self._memory, word * 8)[0])

    @property
    def parts(self) -> int:
        """Parts of answers that were sent, without the last of each."""
        return self.gauge(PARTS)

    @property
    def answers(self) -> Answers:
        """Answered requests."""
        found = struct.unpack_from(_ANSWERS_FORMAT, self._memory, _ERRORS * 8)
        return Answers(found[0], found[1], found[2:])

    def totals(self) -> Totals:
        """Returns the sums of this block so far."""
        found = Totals()
        head = memoryview(self._memory[: _MATRIX * 8]).cast("Q")
        found.dropped = head[_DROPPED]
        found.seconds = struct.unpack_from("=d", self._memory, _SECONDS * 8)[0]
        found.errors = list(head[_ERRORS : _ERRORS + 2])
        found.buckets = list(head[_BUCKETS : _BUCKETS + len(BOUNDS) + 1])
        found.work = Work(*struct.unpack_from(_WORK_FORMAT, self._memory, _WORK * 8))
        for index, reason in enumerate(REASONS):
            found.rejected[reason] = head[_REJECTED + index]
        for row, method in enumerate(METHODS):
            start = (_MATRIX + row * _CODES) * 8
            content = self._memory[start : start + _CODES * 8]
            if content != _EMPTY_ROW:
                for code, count in enumerate(memoryview(content).cast("Q"), _FIRST_CODE):
                    if count:
                        found.requests[method, code] = count
        return found

    def close(self) -> None:
        """Unmaps the memory."""
        self._memory.close()
