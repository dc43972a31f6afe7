"""Whether old and new workers of a service fit on its GPUs together. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from servd.config.worker_tables import Rollout
from servd.core.quick_dataclass import dataclass
from servd.plan.gpu_assignment import Dealt
from servd.plan.gpu_inventory import GpuInventory, Ids, gib
from servd.plan.gpu_requests import GpuRequest
from servd.plan.model import ServicePlan


@dataclass(frozen=True, slots=True)
class RolloutChoice:
    """A rollout, and why the old workers have to end first: "" where they need not."""

    rollout: Rollout
    reason: str = ""


class GpuBudget:
    """What the workers of all services take of each GPU. `peaks`: the most that a worker of a
    service was seen to take of a GPU, which counts where it is more than what is declared.
    """

    def __init__(
        self,
        wanted: Sequence[GpuRequest],
        dealt: Dealt,
        gpus: GpuInventory,
        peaks: Mapping[str, int],
    ) -> None:
        self._gpus, self._peaks, self._dealt = gpus, peaks, dealt
        self._requests = {request.service: request for request in wanted}
        self._taken: Counter[str] = Counter()
        for service, workers in dealt.items():
            for ids in workers:
                self._taken.update(self._needs(self._requests[service], ids))

    def _needs(self, request: GpuRequest, ids: Ids) -> dict[str, int]:
        """The bytes that a worker takes of each of its GPUs. What was measured counts more than the
        part of a share.
        """
        peak = self._peaks.get(request.service, 0)
        if request.memory is None and peak:
            return dict.fromkeys(ids, peak)
        return {gpu: max(request.need(self._gpus.total(gpu)), peak) for gpu in ids}

    def choose(self, service: ServicePlan) -> RolloutChoice:
        """Returns the rollout of a service: its own if it names a strategy, or as long as nothing
        is known; else new workers next to the old ones, as many at a time as fit, or none.
        """
        given = service.definition.rollout
        request = self._requests[service.name]
        declared = request.memory is not None or request.service in self._peaks
        if "strategy" in given.model_fields_set or service.is_task or not declared:
            return RolloutChoice(service.rollout)
        workers = self._dealt[service.name]
        if not self._beyond(request, workers, len(workers)):
            return RolloutChoice(service.rollout)
        for batch in range(len(workers) - 1, 0, -1):
            if not self._beyond(request, workers, batch):
                return RolloutChoice(_at_most(given, batch, len(workers)))
        needed, free = self._beyond(request, workers, 1)[0]
        reason = f"{gib(needed)} GiB more are needed, {gib(max(0, free))} are free"
        return RolloutChoice(given.model_copy(update={"strategy": "recreate"}), reason)

    def _beyond(
        self, request: GpuRequest, workers: Sequence[Ids], batch: int
    ) -> list[tuple[int, int]]:
        """Returns what new workers of a batch need of a GPU and what is free there, where that does
        not fit.
        """
        found = []
        for more in self._batches(request, workers, batch):
            for gpu, needed in more.items():
                total = self._gpus.total(gpu)
                free = total - self._taken[gpu]
                if total and needed > free:
                    found.append((needed, free))
        return found

    def _batches(
        self, request: GpuRequest, workers: Sequence[Ids], batch: int
    ) -> Iterator[Counter[str]]:
        for start in range(0, len(workers), batch):
            more: Counter[str] = Counter()
            for ids in workers[start : start + batch]:
                more.update(self._needs(request, ids))
            yield more


def _at_most(given: Rollout, batch: int, workers: int) -> Rollout:
    """Returns a surge of at most `batch` workers."""
    surge = given.max_surge
    if isinstance(surge, str):
        surge = max(1, -(-workers * int(surge.rstrip("%")) // 100))
    return given.model_copy(update={"max_surge": min(surge, batch)})
