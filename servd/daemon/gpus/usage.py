"""Which worker holds how much memory of which GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from servd.config.gpu_table import GpuNeeds
from servd.core.processes import owner_of
from servd.core.quick_dataclass import dataclass
from servd.plan.model import ServicePlan
from servd.supervisor.supervisor import Supervisor
from servd.wire.gpus import Gpu, GpuHolder, GpuSnapshot


@dataclass(frozen=True, slots=True)
class GpuUse:
    """A GPU of a worker: its UUID and its number ("" where unknown or none), its model, and the
    memory that the worker and the processes it started hold; null where that is not measured.
    `declared_bytes`: what `gpus.memory` says that it needs there.
    """

    id: str
    number: str
    name: str
    memory_bytes: int | None
    declared_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class GpuWorker:
    """A worker by its service and index."""

    service: str
    worker: int


class GpuUsage:
    """The holders of a snapshot, by worker. `workers`: the workers by pid."""

    def __init__(self, snapshot: GpuSnapshot | None, workers: Mapping[int, GpuWorker]) -> None:
        self.snapshot = snapshot
        self._workers = workers
        self._owners: dict[int, int] = {}
        self._held: dict[tuple[int, str], int | None] = {}
        """Bytes by worker and GPU; None where a process of it is not measured."""
        if snapshot is None or not snapshot.names_processes:
            return
        for pid in {holder.pid for gpu in snapshot.gpus for holder in gpu.holders}:
            if (owner := owner_of(pid, workers)) is not None:
                self._owners[pid] = owner
        for gpu in snapshot.gpus:
            for holder in gpu.holders:
                self._count(gpu, holder)

    def _count(self, gpu: Gpu, holder: GpuHolder) -> None:
        owner = self._owners.get(holder.pid)
        if owner is not None:
            held = self._held.get((owner, gpu.id), 0)
            known = held is not None and holder.memory is not None
            self._held[owner, gpu.id] = (held or 0) + (holder.memory or 0) if known else None

    def is_of(self, snapshot: GpuSnapshot, workers: Mapping[int, GpuWorker]) -> bool:
        """Whether it was made of these: finding the owners of processes costs."""
        return self.snapshot is snapshot and self._workers == workers

    def of(self, pid: int, assigned: Sequence[str], plan: ServicePlan) -> list[GpuUse]:
        """Returns the GPUs of a worker of `plan`: those `assigned` to it by id or number, and
        others of which it holds memory.
        """
        asked = plan.definition.gpus
        declared = asked.memory if isinstance(asked, GpuNeeds) else None
        if self.snapshot is None:
            return [_unknown(name, plan.gpu_names, declared) for name in assigned]
        found = {name: self.snapshot.find(name) for name in assigned}
        uses = [
            self._use(gpu, pid, declared)
            if gpu is not None
            else _unknown(name, plan.gpu_names, declared)
            for name, gpu in found.items()
        ]
        listed = {gpu.id for gpu in found.values() if gpu is not None}
        others = (gpu for gpu in self.snapshot.gpus if gpu.id not in listed)
        return uses + [self._use(gpu, pid) for gpu in others if (pid, gpu.id) in self._held]

    def owner(self, holder: GpuHolder) -> GpuWorker | None:
        """Returns the worker that a process belongs to."""
        pid = self._owners.get(holder.pid)
        return self._workers[pid] if pid is not None else None

    def by_worker(self) -> dict[tuple[GpuWorker, str], int]:
        """Returns bytes by worker and id of the GPU."""
        found: dict[tuple[GpuWorker, str], int] = {}
        for gpu in self.snapshot.gpus if self.snapshot is not None else ():
            for holder in gpu.holders:
                owner = self.owner(holder)
                if owner is not None and holder.memory is not None:
                    key = (owner, gpu.id)
                    found[key] = found.get(key, 0) + holder.memory
        return found

    def _use(self, gpu: Gpu, pid: int, declared: int | None = None) -> GpuUse:
        assert self.snapshot is not None
        memory = self._held.get((pid, gpu.id), 0) if self.snapshot.names_processes else None
        return GpuUse(gpu.id, gpu.number, gpu.name, memory, declared)


def _unknown(name: str, names: Mapping[str, str], declared: int | None) -> GpuUse:
    called = names.get(name, name)
    number = called if called.isdecimal() else ""
    return GpuUse("" if name.isdecimal() else name, number, "", None, declared)


NO_USAGE = GpuUsage(None, {})

_latest: list[GpuUsage] = []
"""The last usage, which stands until the snapshot or the workers change."""


def usage_of(snapshot: GpuSnapshot | None, supervisor: Supervisor) -> GpuUsage:
    """Returns what all workers hold, those that drain too."""
    if snapshot is None:
        return NO_USAGE
    workers = {
        process.pid: GpuWorker(service.plan.name, process.slot)
        for service in (*supervisor.services.values(), *supervisor.leaving)
        for generation in service.generations
        for process in (*generation.workers.processes, *generation.workers.leaving)
    }
    if not (_latest and _latest[0].is_of(snapshot, workers)):
        _latest[:] = [GpuUsage(snapshot, workers)]
    return _latest[0]
