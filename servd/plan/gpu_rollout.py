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
    """A rollout, and why the old workers have to end first: "" where they need not. `fits_twice`:
    whether all its workers fit next to all old ones, as in an upgrade of the daemon.
    """

    rollout: Rollout
    reason: str = ""
    fits_twice: bool = True


class GpuBudget:
    """What the workers of all services take of each GPU. `peaks`: the most that a worker of a
    service was seen to take of a GPU, which counts where it is more than what is declared. Services
    may change together: each finds less room than those that were asked for before it.
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
        self._taken_twice: Counter[str] = Counter()
        for service, workers in dealt.items():
            for ids in workers:
                self._taken.update(self._needs(self._requests[service], ids))
        self._taken_twice.update(self._taken)

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
        is known; else new workers next to the old ones, as many at a time as fit, or none. What
        they take meanwhile is not free for the services that are asked for later.
        """
        request = self._requests[service.name]
        declared = request.memory is not None or request.service in self._peaks
        if service.is_task or not declared:
            return RolloutChoice(service.rollout)
        workers = self._dealt[service.name]
        fits_twice = not self._beyond(request, workers, len(workers), self._taken_twice)
        chosen = self._fitting(service, request, workers)
        if fits_twice:
            self._taken_twice |= self._with_new(request, workers, len(workers), self._taken_twice)
        if chosen.rollout.strategy != "recreate":
            surge = surge_of(chosen.rollout, len(workers))
            self._taken |= self._with_new(request, workers, surge, self._taken)
        return RolloutChoice(chosen.rollout, chosen.reason, fits_twice)

    def _fitting(
        self, service: ServicePlan, request: GpuRequest, workers: Sequence[Ids]
    ) -> RolloutChoice:
        given = service.definition.rollout
        whole = not self._beyond(request, workers, len(workers), self._taken)
        if "strategy" in given.model_fields_set or whole:
            return RolloutChoice(service.rollout)
        for batch in range(len(workers) - 1, 0, -1):
            if not self._beyond(request, workers, batch, self._taken):
                return RolloutChoice(_at_most(given, batch, len(workers)))
        needed, free = self._beyond(request, workers, 1, self._taken)[0]
        reason = f"{gib(needed)} GiB more are needed, {gib(max(0, free))} are free"
        return RolloutChoice(given.model_copy(update={"strategy": "recreate"}), reason)

    def _beyond(
        self, request: GpuRequest, workers: Sequence[Ids], batch: int, taken: Counter[str]
    ) -> list[tuple[int, int]]:
        """Returns what new workers of a batch need of a GPU and what is free there, where that does
        not fit.
        """
        found = []
        for more in self._batches(request, workers, batch):
            for gpu, needed in more.items():
                total = self._gpus.total(gpu)
                free = total - taken[gpu]
                if total and needed > free:
                    found.append((needed, free))
        return found

    def _with_new(
        self, request: GpuRequest, workers: Sequence[Ids], batch: int, taken: Counter[str]
    ) -> Counter[str]:
        """Returns what is taken of each GPU at most while batches of new workers start."""
        most: Counter[str] = Counter()
        for more in self._batches(request, workers, batch):
            most |= taken + more
        return most

    def _batches(
        self, request: GpuRequest, workers: Sequence[Ids], batch: int
    ) -> Iterator[Counter[str]]:
        for start in range(0, len(workers), batch):
            more: Counter[str] = Counter()
            for ids in workers[start : start + batch]:
                more.update(self._needs(request, ids))
            yield more


def surge_of(rollout: Rollout, workers: int) -> int:
    """Returns how many new workers start at a time."""
    if rollout.strategy == "one-by-one":
        return 1
    surge = rollout.max_surge
    if isinstance(surge, str):
        return max(1, -(-workers * int(surge.rstrip("%")) // 100))
    return max(1, surge)


def _at_most(given: Rollout, batch: int, workers: int) -> Rollout:
    """Returns a surge of at most `batch` workers."""
    return given.model_copy(update={"max_surge": min(surge_of(given, workers), batch)})
