"""Requests per second and latencies, from counted buckets."""

from __future__ import annotations

import pytest

from servd.daemon.metrics.rates import RequestRates, percentile
from servd.supervisor.counters import CounterRegistry
from servd.wire.shm_counters import BOUNDS, Counters


def buckets(**of: int) -> list[int]:
    """Counts of buckets by their index: `buckets(b3=10)`."""
    counts = [0] * (len(BOUNDS) + 1)
    for name, count in of.items():
        counts[int(name[1:])] = count
    return counts


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [
        (buckets(), 0.99, None),
        (buckets(b0=10), 0.5, 0.5),  # half way from 0 to 1 ms
        (buckets(b0=10), 1.0, 1.0),
        (buckets(b0=50, b1=50), 0.5, 1.0),
        (buckets(b0=50, b1=50), 0.75, 1.75),
        (buckets(b0=98, b5=2), 0.99, 37.5),  # half way from 25 to 50 ms
        (buckets(b15=1), 0.5, 60_000.0),  # beyond the last bound: at least that
    ],
)
def test_percentiles_are_spread_evenly_within_a_bucket(
    counts: list[int], share: float, expected: float | None
) -> None:
    assert percentile(counts, share) == expected


def test_rates_are_of_what_was_counted_since_the_first_reading() -> None:
    counts = CounterRegistry()
    descriptor, reading, *_ = counts.open("web")
    worker = Counters(descriptor)
    worker.answered("GET", 200, 0.0005)
    traffic = RequestRates(counts)
    assert traffic.service("web").per_second == 0.0  # nothing is known yet
    traffic.read()
    assert traffic.service("web").p99_ms is None
    for _ in range(100):
        worker.answered("GET", 200, 0.0005)
    rate = traffic.service("web")
    assert rate.per_second is not None
    assert rate.per_second > 0
    assert (rate.p50_ms, rate.p99_ms) == (0.5, 0.99)
    assert traffic.worker(reading) == rate
    assert (rate.client_errors, rate.server_errors, rate.trouble) == (0.0, 0.0, "")
    assert rate.error_rate == 0.0
    for status in (404, 500, 502):
        worker.answered("GET", status, 0.0005)
    rate = traffic.service("web")
    assert rate.client_errors
    assert rate.server_errors
    assert rate.server_errors > rate.client_errors
    assert rate.error_rate == pytest.approx(2 / 103, abs=1e-4)
    assert rate.trouble == ""
    for _ in range(200):
        worker.answered("GET", 503, 0.0005)
    trouble = "202 of 303 recent requests failed with 5xx"
    assert traffic.service("web").trouble == trouble
    counts.close("web", reading)
    traffic.read()
    assert traffic.service("web").p50_ms == 0.5  # what the dead have counted still counts
