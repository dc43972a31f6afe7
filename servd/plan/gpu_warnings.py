"""What about GPUs is possible, but probably not meant. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from servd.config.gpu_table import GpuNeeds
from servd.config.scalars import print_size
from servd.core.quick_dataclass import dataclass
from servd.plan.gpu_inventory import CONTEXT_BYTES, GIB, gib
from servd.plan.gpus import VISIBLE, gpu_requests
from servd.plan.model import Plan, ServicePlan


@dataclass(frozen=True, slots=True)
class GpuWarning:
    """A warning about a key of a service."""

    service: str
    key: str
    message: str
    hint: str = ""


def gpu_warnings(plan: Plan, peaks: Mapping[str, int]) -> Iterator[GpuWarning]:
    """Yields what is to be said of a plan with GPUs. `peaks`: the bytes that a worker of a service
    was seen to take of a GPU.
    """
    owners = [r.service for r in gpu_requests(plan) if r.named or r.memory is not None]
    for service in plan.services:
        if owners and _sees_all(service):
            others = " and ".join(owners[:3])
            message = f"it sees all GPUs, those of {others} too"
            yield GpuWarning(service.name, "gpus", message, 'write gpus = "none" to hide them')
        near = service.definition.cpu_affinity == "gpu"
        if near and service.gpus and not service.identity.affinity:
            message = "the CPUs next to its GPUs are not known: its workers run on all CPUs"
            yield GpuWarning(service.name, "cpu_affinity", message)
        asked, peak = service.definition.gpus, peaks.get(service.name, 0)
        memory = asked.memory if isinstance(asked, GpuNeeds) else None
        if memory is not None and peak > memory + CONTEXT_BYTES:
            message = f"declared {print_size(memory)}, peak {gib(peak)}GiB"
            hint = f'write memory = "{_rounded(peak - CONTEXT_BYTES)}"'
            yield GpuWarning(service.name, "gpus", message, hint)


def _sees_all(service: ServicePlan) -> bool:
    """Whether nothing is said of its GPUs, and nothing hides them from it."""
    given = service.definition
    hidden = VISIBLE in service.environment or service.gpus
    runs = service.workers and service.external is None
    return bool(runs) and not hidden and given.gpus == 0 and "gpus" not in given.model_fields_set


def _rounded(peak: int) -> str:
    """Returns a size in whole GiB that is enough."""
    return f"{-(-peak // GIB)}GiB"
