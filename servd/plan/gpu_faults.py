"""What an error of a GPU means for it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Literal

from servd.core.quick_dataclass import dataclass
from servd.wire.gpus import Gpu, GpuFault, GpuSnapshot

Meaning = Literal["application", "failed", "driver"]


def meaning_of(fault: GpuFault, now: GpuSnapshot | None) -> Meaning:
    """Returns what an error means: one of a program ("application"), a GPU that cannot be relied on
    any more ("failed"), or a driver that has lost all GPUs, of which none is to blame ("driver").
    `now` is what the driver tells after it.
    """
    if fault.is_of_the_application:
        return "application"
    return "driver" if now is not None and not now.gpus else "failed"


def text_of(fault: GpuFault) -> str:
    """Returns the error as people read it: `Xid 79: GPU has fallen off the bus`."""
    if not fault.xid:
        return fault.text or "an error without a number"
    return f"Xid {fault.xid}: {fault.text}" if fault.text else f"Xid {fault.xid}"


def troubles(snapshot: GpuSnapshot, known: Mapping[str, str]) -> Iterable[GpuFault]:
    """Yields a fault for each GPU that the driver calls unreliable, unless that is `known`."""
    for gpu in snapshot.gpus:
        if gpu.trouble and known.get(gpu.id) != gpu.trouble:
            yield GpuFault(gpu.id, 0, gpu.trouble)


@dataclass(frozen=True, slots=True)
class Quarantine:
    """GPUs that no worker gets, each with its reason; by their ids."""

    reasons: Mapping[str, str]

    def __bool__(self) -> bool:
        return bool(self.reasons)

    def reason(self, name: str, known: Iterable[Gpu]) -> str:
        """Returns why a GPU, or the one that it is an instance of, is not to be used; "" if it may.
        `name`: its id, or the number by which a plan calls it.
        """
        gpu = next((gpu for gpu in known if name in (gpu.id, gpu.number)), None)
        names = (name,) if gpu is None else (name, gpu.id, gpu.parent)
        return next((self.reasons[each] for each in names if each in self.reasons), "")

    def without(self, names: Collection[str], known: Collection[Gpu]) -> tuple[str, ...]:
        """Returns those of the GPUs that may be used."""
        return tuple(name for name in names if not self.reason(name, known))
