"""All GPUs and who holds them: the shape of `GET /v1/gpus`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from servd.core.quick_dataclass import dataclass
from servd.host.gpu_query import GpuAnswer
from servd.plan.gpu_faults import Quarantine
from servd.wire.gpus import Gpu, GpuHolder

if TYPE_CHECKING:
    from servd.daemon.gpus.usage import GpuWorker

_NONE = Quarantine({})


@dataclass(frozen=True, slots=True)
class GpuHolderStatus:
    """A process that holds memory of a GPU; `service` and `worker` are null for a stranger."""

    pid: int
    name: str
    memory_bytes: int | None
    service: str | None
    worker: int | None


@dataclass(frozen=True, slots=True)
class GpuStatus:
    """A GPU, or an instance of one (`parent`; `number` is "" then). `utilization` is a share from 0
    to 1, `ecc_errors` counts uncorrectable errors, `trouble` is why it cannot be relied on ("" if
    it can), `quarantine` why no worker gets it ("" if workers may). What the driver does not tell
    is null.
    """

    id: str
    number: str
    name: str
    parent: str
    memory_bytes: int
    used_bytes: int
    utilization: float | None
    temperature_celsius: float | None
    power_watts: float | None
    ecc_errors: int | None
    trouble: str
    quarantine: str
    holders: list[GpuHolderStatus]


@dataclass(frozen=True, slots=True)
class GpusStatus:
    """All GPUs of the machine; `error` is why they are unknown. Without `names_processes`, as in
    some containers, the driver's pids are not those of this machine.
    """

    driver: str
    names_processes: bool
    gpus: list[GpuStatus]
    error: str | None


def gpus_status(
    answer: GpuAnswer,
    owner_of: Callable[[GpuHolder], GpuWorker | None] = lambda holder: None,
    quarantine: Quarantine = _NONE,
) -> GpusStatus:
    """Returns what is known of the GPUs. `owner_of` tells the worker that a process belongs to."""
    snapshot = answer.snapshot
    if snapshot is None:
        return GpusStatus("", True, [], answer.error or "the GPU driver does not answer yet")
    gpus = [_status(gpu, owner_of, quarantine, snapshot.gpus) for gpu in snapshot.gpus]
    return GpusStatus(snapshot.driver, snapshot.names_processes, gpus, None)


def _status(
    gpu: Gpu,
    owner_of: Callable[[GpuHolder], GpuWorker | None],
    quarantine: Quarantine,
    gpus: tuple[Gpu, ...],
) -> GpuStatus:
    holders = []
    for holder in gpu.holders:
        owner = owner_of(holder)
        holders.append(
            GpuHolderStatus(
                pid=holder.pid,
                name=holder.name,
                memory_bytes=holder.memory,
                service=owner.service if owner is not None else None,
                worker=owner.worker if owner is not None else None,
            )
        )
    return GpuStatus(
        id=gpu.id,
        number=gpu.number,
        name=gpu.name,
        parent=gpu.parent,
        memory_bytes=gpu.total,
        used_bytes=gpu.used,
        utilization=gpu.utilization,
        temperature_celsius=gpu.temperature,
        power_watts=gpu.power,
        ecc_errors=gpu.errors,
        trouble=gpu.trouble,
        quarantine=quarantine.reason(gpu.id, gpus),
        holders=holders,
    )
