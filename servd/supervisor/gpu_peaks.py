"""The most that workers took of a GPU, as long as workers of the same kind run."""

from __future__ import annotations

from collections.abc import Iterable

from servd.config.service import Service
from servd.plan.model import ServicePlan

Kind = tuple[Service, tuple[tuple[str, str], ...]]
"""The definition and the inputs of a worker: with others, it may take another amount."""


def kind_of(plan: ServicePlan) -> Kind:
    """Returns the kind of the workers of a plan."""
    return plan.definition, plan.inputs


class GpuPeaks:
    """Keeps in `most`, by service, the bytes that a worker took at most of one GPU. What was there
    before counts for the first kind of workers that is measured.
    """

    def __init__(self, most: dict[str, int]) -> None:
        self._most = most
        self._kinds: dict[str, list[tuple[Kind, int]]] = {}

    def note(self, service: str, kind: Kind, peak: int) -> None:
        """Takes what a worker holds."""
        kinds = self._kinds.get(service)
        if kinds is None:
            kinds = [(kind, self._most.get(service, 0))]
        before = next((most for known, most in kinds if known == kind), 0)
        others = [each for each in kinds if each[0] != kind]
        self._keep(service, [*others, (kind, max(before, peak))])

    def forget_others(self, service: str, running: Iterable[Kind]) -> None:
        """Forgets the kinds that run no more, if others do."""
        kinds, left = self._kinds.get(service), list(running)
        if kinds and left:
            self._keep(service, [each for each in kinds if each[0] in left])

    def _keep(self, service: str, kinds: list[tuple[Kind, int]]) -> None:
        self._kinds[service] = kinds
        if kinds:
            self._most[service] = max(most for _, most in kinds)
        else:
            self._most.pop(service, None)
