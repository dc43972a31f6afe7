"""Medians with bootstrap intervals."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence

RESAMPLES = 2000


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The median of values with a 95 % bootstrap interval: median, low, high."""
    rng = random.Random(0)
    medians = sorted(
        statistics.median(rng.choices(values, k=len(values))) for _ in range(RESAMPLES)
    )
    cut = RESAMPLES // 40
    return float(statistics.median(values)), float(medians[cut]), float(medians[-cut - 1])


def ratios(values: Sequence[float], base: Sequence[float]) -> list[float]:
    """Each value beside the one that was measured at the same place of the order.

    Pairs are kept up to the shorter of both; where the base is 0 there is none.
    """
    return [value / other for value, other in zip(values, base, strict=False) if other]
