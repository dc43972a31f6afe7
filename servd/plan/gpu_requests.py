"""What the services of a plan request of GPUs. Pure."""

from __future__ import annotations

from servd.config.gpu_table import GpuNeeds, gpus_each
from servd.core.quick_dataclass import dataclass
from servd.plan.gpu_inventory import CONTEXT_BYTES, Ids, gib
from servd.plan.model import Plan, ServicePlan


@dataclass(frozen=True, slots=True)
class GpuRequest:
    """A request: `each` per worker or, if `shared`, for all together; or the GPUs `named`.
    `memory`: bytes that a worker needs on each of its GPUs. `near`: GPUs near each other.
    """

    service: str
    workers: int
    each: float = 0.0
    shared: bool = False
    named: Ids = ()
    memory: int | None = None
    near: bool = False
    sound_only: bool = False
    """Whether no GPU in quarantine will do."""

    @property
    def portions(self) -> int:
        """Number of times that `each` is requested."""
        return 1 if self.shared else self.workers

    @property
    def is_share(self) -> bool:
        """Whether a worker has a part of one GPU."""
        return 0 < self.each < 1 and not self.named

    def need(self, total: int) -> int:
        """Returns the bytes that a worker takes of a GPU with `total` bytes: its memory and a CUDA
        context. A share without memory is its part of the total, a whole GPU has no need.
        """
        if self.memory is not None:
            return self.memory + CONTEXT_BYTES
        return int(total * self.each) if self.is_share else 0

    def memory_text(self, total: int) -> str:
        """Returns `ocr 3 x 9GiB`, or `web 0.25 (20 GiB)` for a share without memory."""
        times = f"{self.portions} x " if self.portions != 1 else ""
        if self.memory is not None:
            return f"{self.service} {times}{gib(self.memory)}GiB"
        return f"{self} ({gib(self.need(total))} GiB{' each' if times else ''})"

    def __str__(self) -> str:
        times = f"{self.portions} x " if self.portions != 1 else ""
        return f"{self.service} {times}{self.each:g}"


def gpu_requests(plan: Plan) -> list[GpuRequest]:
    """Returns the requests of the running services."""
    return [found for service in plan.services if (found := request_of(service)) is not None]


def request_of(service: ServicePlan) -> GpuRequest | None:
    """Returns the request of a service; None if it runs no workers, or wants no GPUs."""
    found = _request(service)
    wants = found is not None and found.workers and (found.named or found.each)
    return found if wants else None


def _request(service: ServicePlan) -> GpuRequest | None:
    wanted, part = service.definition.gpus, service.part
    name, workers = service.name, service.workers
    if wanted == "none":
        return None
    if isinstance(wanted, GpuNeeds):
        memory, near = wanted.memory, wanted.topology == "near"
        return GpuRequest(name, workers, gpus_each(wanted), memory=memory, near=near)
    if isinstance(wanted, tuple):
        return GpuRequest(name, workers, named=tuple(map(str, wanted)))
    if wanted:
        return GpuRequest(name, workers, gpus_each(wanted))
    return GpuRequest(name, workers, part.gpus, shared=True) if part is not None else None
