"""The GPUs that the services of a plan may have, with what is known of them. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from servd.core.quick_dataclass import dataclass
from servd.wire.gpus import Gpu

Ids = tuple[str, ...]

GIB = 1 << 30

CONTEXT_BYTES = GIB // 2
"""What the CUDA context of a process takes on each GPU, before the first byte of a model."""


class GpuError(Exception):
    """More is requested of GPUs than exists; `service` is one that requests it."""

    def __init__(self, service: str, message: str) -> None:
        self.service = service
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class GpuInventory:
    """GPUs of this machine. `ids` stay when the numbers of GPUs shift: UUIDs, or what a GPU is
    called as long as nothing is known of it. `ordered`: by PCI bus, as CUDA is told; else the names
    are the operator's. `declared`: by the config. `known`: what the driver says of them. `cpus`:
    those that workers may run on; empty: all. `unknown`: why there may be GPUs that are not listed.
    """

    ids: Ids = ()
    ordered: bool = True
    declared: bool = False
    known: tuple[Gpu, ...] = ()
    names: tuple[tuple[str, str], ...] = ()
    cpus: tuple[int, ...] = ()
    quarantined: frozenset[str] = frozenset()
    """Those that are given only to services for which the others do not suffice."""
    unknown: str = ""

    @property
    def by_id(self) -> dict[str, Gpu]:
        """What is known of each GPU, by id."""
        return {gpu.id: gpu for gpu in self.known}

    def resolve(self, name: str) -> str:
        """Returns the id of a GPU by its number, its id, or the start of its id; else `name`."""
        if name in self.ids:
            return name
        found = find_gpu(self.known, name)
        return found.id if found is not None else name

    def visible(self, gpu: str) -> str:
        """Returns what a GPU is called in CUDA_VISIBLE_DEVICES."""
        known = self.by_id.get(gpu)
        own = dict(self.names).get(gpu)
        return own if own is not None else known.visible if known is not None else gpu

    def total(self, gpu: str) -> int:
        """Returns the bytes of memory of a GPU; 0: unknown."""
        known = self.by_id.get(gpu)
        return known.total if known is not None else 0

    def is_instance(self, gpu: str) -> bool:
        """Returns whether it is an instance of a GPU (MIG): CUDA lets a process see only one."""
        known = self.by_id.get(gpu)
        return bool(known.parent) if known is not None else gpu.startswith("MIG-")


def find_gpu(known: Sequence[Gpu], name: str) -> Gpu | None:
    """Returns the GPU with this number or id, or the only one whose id begins so (as CUDA does)."""
    exact = [gpu for gpu in known if name and name in (gpu.id, gpu.number)]
    if exact or not name.startswith(("GPU-", "MIG-")):
        return exact[0] if exact else None
    begun = [gpu for gpu in known if gpu.id.startswith(name)]
    return begun[0] if len(begun) == 1 else None


def gib(size: float) -> str:
    """Returns bytes as GiB, with at most one decimal: `79.6`, `70`."""
    return f"{size / GIB:.1f}".removesuffix(".0")
