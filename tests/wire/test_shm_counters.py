"""The counters that a worker shares with the daemon."""

from __future__ import annotations

import contextlib
import mmap
import os

import pytest

from servd.supervisor.counters import CounterRegistry
from servd.wire import shm_counters
from servd.wire.sealed_memory import create
from servd.wire.shm_counters import Counters, CounterView, Totals


def test_what_a_worker_counts_the_daemon_reads() -> None:
    descriptor = create("test", shm_counters.SIZE)
    reading, counters = CounterView(descriptor), Counters(descriptor)
    counters.answered("GET", 200, 0.0005)
    counters.answered("GET", 200, 0.3)
    counters.answered("BREW", 418, 100.0)
    counters.answered("GET", 999, 0.001)  # no status, but an answer all the same
    counters.rejected("concurrency")
    counters.dropped(7)
    counters.gauges[shm_counters.IN_FLIGHT] = 3
    totals = reading.totals()
    assert totals.requests == {("GET", 200): 2, ("_OTHER", 418): 1}
    assert totals.answers.total == reading.answers.total == 4
    assert totals.seconds == pytest.approx(100.3015)
    assert totals.buckets[0] == 2  # up to and with one millisecond
    assert totals.buckets[-1] == 1
    assert totals.rejected == {"concurrency": 1, "body": 0}
    assert totals.dropped == 7
    assert reading.gauge(shm_counters.IN_FLIGHT) == 3


def test_sums_never_go_back_when_workers_end() -> None:
    counts = CounterRegistry()
    for seen in range(5):
        descriptor, reading, *_ = counts.open("web")
        counters = Counters(descriptor)
        counters.answered("GET", 200, 0.1)
        counters.gauges[shm_counters.WEBSOCKETS] = 1
        assert counts.totals("web").answers.total == seen + 1
        assert counts.gauge("web", shm_counters.WEBSOCKETS) == 1
        counts.close("web", reading)
        assert counts.totals("web").answers.total == seen + 1
        assert counts.gauge("web", shm_counters.WEBSOCKETS) == 0
    assert counts.services == ["web"]
    assert counts.totals("other").answers.total == 0


def test_a_block_cannot_be_made_smaller() -> None:
    """The daemon would be killed by SIGBUS at its next look."""
    descriptor = create("test", shm_counters.SIZE)
    try:
        for size in (0, shm_counters.SIZE * 2):
            with pytest.raises(PermissionError):
                os.ftruncate(descriptor, size)
    finally:
        os.close(descriptor)


def test_nonsense_in_a_block_is_read_as_numbers() -> None:
    descriptor = create("test", shm_counters.SIZE)
    reading = CounterView(descriptor)
    with contextlib.closing(mmap.mmap(descriptor, shm_counters.SIZE)) as memory:
        memory[:] = b"\xff" * shm_counters.SIZE
    os.close(descriptor)
    totals = Totals()
    totals.add(reading.totals())
    assert totals.dropped == 2**64 - 1
    reading.close()


def test_what_requests_needed_is_summed_without_their_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpu = 10.0
    monkeypatch.setattr(shm_counters, "process_time", lambda: cpu)
    counts = CounterRegistry()
    descriptor, reading, *_ = counts.open("web")
    counters = Counters(descriptor)
    counters.worked(0.2, 0.0, 100.0)  # what CPU time the app took before is not its
    cpu += 0.003
    counters.worked(0.2, 0.0, 100.01)  # soon after: read later
    cpu += 0.003
    counters.worked(0.4, 0.1, 100.06)
    cpu += 5.0
    counters.worked(0.4, 0.0, 160.0)  # after a minute without requests
    work = reading.totals().work
    assert work[:4] == pytest.approx((4, 1.2, 0.4, 0.1))
    assert (work.cpu, work.measured) == pytest.approx((0.006, 2))
    counts.close("web", reading)
    assert counts.totals("web").work == work
