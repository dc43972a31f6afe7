"""The rates of the last ten minutes, a sample every five seconds: rings of numbers."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping

from servd.daemon.metrics.rates import Rate

INTERVAL_SECONDS = 5.0
"""Time between two samples."""

SAMPLES = 120
"""Most samples kept of each figure."""

FIGURES = {
    "rps": "per_second",
    "rps_4xx": "client_errors",
    "rps_5xx": "server_errors",
    "p99_ms": "p99_ms",
}
"""The figures kept of each service, and the fields of `Rate` that they come from."""

Figures = dict[str, list[float | None]]
"""Values of one service by figure, oldest first; None where nothing was measured."""


class RateHistory:
    """Keeps the last samples of all services. Sample numbers count from 1."""

    def __init__(self, samples: int = SAMPLES) -> None:
        self.newest = 0
        self._samples = samples
        self._rings: dict[str, dict[str, array[float]]] = {}

    def record(self, rates: Mapping[str, Rate]) -> None:
        """Adds one sample, and forgets services that it lacks."""
        for gone in self._rings.keys() - rates.keys():
            del self._rings[gone]
        place = self.newest % self._samples
        for name, rate in rates.items():
            for figure, ring in self._rings.setdefault(name, self._empty()).items():
                value = getattr(rate, FIGURES[figure])
                ring[place] = math.nan if value is None else value
        self.newest += 1

    def after(self, number: int) -> dict[str, Figures]:
        """Returns the samples after `number`, or all that are kept if there was no such sample."""
        missing = self.newest - number if 0 <= number <= self.newest else self._samples
        places = list(self._last(min(missing, self.newest, self._samples)))
        return {
            name: {
                figure: [None if math.isnan(ring[at]) else ring[at] for at in places]
                for figure, ring in rings.items()
            }
            for name, rings in self._rings.items()
        }

    def _last(self, count: int) -> Iterator[int]:
        """The places of the last samples, oldest first."""
        return (number % self._samples for number in range(self.newest - count, self.newest))

    def _empty(self) -> dict[str, array[float]]:
        return {figure: array("d", [math.nan]) * self._samples for figure in FIGURES}
