"""What is known of the GPUs of this machine: values that the GPU helper sends to the daemon."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from servd.core.quick_dataclass import dataclass

APPLICATION_XIDS = frozenset({13, 31, 43, 45, 68})
"""Xids that a program causes, not the GPU (the list of NVIDIA's device plugin for Kubernetes)."""


@dataclass(frozen=True, slots=True)
class GpuHolder:
    """A process that holds memory of a GPU. `memory` in bytes; None where the driver does not tell
    it, as in some containers.
    """

    pid: int
    memory: int | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU, or an instance of one (MIG), as the driver describes it.

    `id` is its UUID, which stays when others vanish; `number` its place on the PCI bus ("" for an
    instance); `parent` the UUID of the GPU that an instance is part of. Memory in bytes (a `total`
    of 0: the driver does not tell), `utilization` from 0 to 1, `temperature` in degrees Celsius,
    `power` in watts; None where the driver does not tell. `errors`: uncorrectable memory errors
    since boot. `trouble`: why it cannot be relied on any more (a row remap that is pending or
    failed); "" if it can. `cpus`: those next to it. `near`: how close other GPUs are, by id; less
    is closer.
    """

    id: str
    number: str = ""
    name: str = ""
    total: int = 0
    free: int = 0
    parent: str = ""
    utilization: float | None = None
    temperature: float | None = None
    power: float | None = None
    errors: int | None = None
    trouble: str = ""
    cpus: tuple[int, ...] = ()
    near: Mapping[str, int] = field(default_factory=dict)
    holders: tuple[GpuHolder, ...] = ()

    @property
    def visible(self) -> str:
        """Its name in CUDA_VISIBLE_DEVICES: some programs take only numbers for whole GPUs."""
        return self.number or self.id

    @property
    def used(self) -> int:
        """Bytes that are not free."""
        return self.total - self.free


@dataclass(frozen=True, slots=True)
class GpuSnapshot:
    """All GPUs at one moment. `names_processes`: whether the driver's pids are those of this
    machine; false in a container with a pid namespace of its own. `lost`: ids of those that the
    driver itself calls lost.
    """

    gpus: tuple[Gpu, ...] = ()
    driver: str = ""
    names_processes: bool = True
    lost: tuple[str, ...] = ()

    @property
    def by_id(self) -> dict[str, Gpu]:
        """The GPUs by id."""
        return {gpu.id: gpu for gpu in self.gpus}

    def find(self, name: str) -> Gpu | None:
        """Returns the GPU with this id or number."""
        return next((gpu for gpu in self.gpus if name in (gpu.id, gpu.number)), None)


@dataclass(frozen=True, slots=True)
class GpuFault:
    """An error that the driver reports of a GPU: its Xid (0: none), and a text."""

    gpu: str
    xid: int
    text: str = ""

    @property
    def is_of_the_application(self) -> bool:
        """Whether a program caused it, and the GPU is sound."""
        return self.xid in APPLICATION_XIDS


def snapshot_from_json(given: Mapping[str, Any]) -> GpuSnapshot:
    """Returns the snapshot that `dataclasses.asdict` made a document of. Raises TypeError,
    ValueError, KeyError and AttributeError for what is none. Keys that are not known are of another
    version.
    """
    gpus = tuple(
        Gpu(
            **{
                **_fields_of(Gpu, gpu),
                "cpus": tuple(gpu.get("cpus", ())),
                "holders": tuple(
                    GpuHolder(**_fields_of(GpuHolder, holder)) for holder in gpu.get("holders", ())
                ),
            }
        )
        for gpu in given["gpus"]
    )
    return GpuSnapshot(
        gpus,
        given.get("driver", ""),
        given.get("names_processes", True),
        tuple(given.get("lost", ())),
    )


def fault_from_json(given: Mapping[str, Any]) -> GpuFault:
    """Returns the fault of a document, as `snapshot_from_json` does with a snapshot."""
    return GpuFault(**_fields_of(GpuFault, given))


def _fields_of(kind: type, given: Mapping[str, Any]) -> dict[str, Any]:
    known = {each.name for each in dataclasses.fields(kind)}
    return {name: value for name, value in given.items() if name in known}
