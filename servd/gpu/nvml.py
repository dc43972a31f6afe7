"""NVIDIA's driver, by its library NVML."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import Any

from servd.core.processes import name_of
from servd.core.quick_dataclass import dataclass
from servd.gpu.backend import BackendError, NoDriverError
from servd.gpu.nvml_events import NvmlEvents, text_of
from servd.gpu.sound import sound
from servd.wire.gpus import Gpu, GpuFault, GpuHolder, GpuSnapshot

_UNEXPLAINED_BYTES = 1 << 30
"""More memory than the driver itself takes: some process holds it."""

_PROCESSES = (
    "nvmlDeviceGetComputeRunningProcesses",
    "nvmlDeviceGetGraphicsRunningProcesses",
    "nvmlDeviceGetMPSComputeRunningProcesses",
)

_FIRST_PID_NAMESPACE = "pid:[4026531836]"
"""The namespace of the machine itself (linux/proc_ns.h, PROC_PID_INIT_INO)."""


@dataclass(frozen=True, slots=True)
class _Device:
    """A GPU of the driver: its place on the PCI bus, its UUID, and what NVML calls it by."""

    number: int
    id: str
    handle: Any


class NvmlBackend:
    """Asks NVML. Raises `BackendError` where there is no driver, or no pynvml."""

    def __init__(self) -> None:
        try:
            import pynvml
        except ImportError:
            raise NoDriverError("the Python package nvidia-ml-py is not installed") from None
        self._nvml = pynvml
        try:
            pynvml.nvmlInit()
            self._driver = text_of(pynvml.nvmlSystemGetDriverVersion())
        except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded) as error:
            raise NoDriverError(f"NVML: {error}") from None
        except pynvml.NVMLError as error:
            raise BackendError(f"NVML: {error}") from None
        self._mismatch: type[Exception] = getattr(pynvml, "NVMLLibraryMismatchError", BackendError)
        self._events = NvmlEvents(pynvml)
        self._ids: dict[int, str] = {}
        """UUIDs by number: a GPU that is lost does not tell its own."""
        self._lost: list[str] = []
        self._levels: dict[tuple[str, ...], dict[str, dict[str, int]]] = {}
        self._cpus: dict[str, tuple[int, ...]] = {}
        self._strange_pids: set[int] | None = None

    def look(self) -> GpuSnapshot:
        self._lost = []
        try:
            devices = list(self._devices())
            near = self._near(devices)
            gpus = [gpu for device in devices for gpu in self._described(device, near)]
        except self._nvml.NVMLError as error:
            raise BackendError(f"NVML: {error}") from None
        names = self._names_processes(gpus)
        found = GpuSnapshot(tuple(gpus), self._driver, names, tuple(self._lost))
        return sound(found if names else _without_names(found))

    def faults(self) -> list[GpuFault]:
        """Returns nothing: NVML tells errors as they come."""
        return []

    def watch(self, tell: Callable[[GpuFault], None]) -> None:
        with contextlib.suppress(self._nvml.NVMLError):
            self._events.start({device.id: device.handle for device in self._devices()}, tell)

    def _told(self, question: str, *given: Any) -> Any:
        """Returns the answer to a question of NVML; None where the driver, the GPU or this version
        of pynvml does not know it.
        """
        nvml = self._nvml
        try:
            return getattr(nvml, question)(*given)
        except (nvml.NVMLError_GpuIsLost, nvml.NVMLError_Uninitialized):
            raise
        except (nvml.NVMLError, self._mismatch, AttributeError):
            return None

    def _devices(self) -> Iterator[_Device]:
        """Yields the GPUs that answer, in the order of the PCI bus."""
        nvml = self._nvml
        for number in range(nvml.nvmlDeviceGetCount()):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(number)
                self._told("nvmlDeviceGetMemoryInfo", handle)  # fails where it is lost
                found = _Device(number, text_of(nvml.nvmlDeviceGetUUID(handle)), handle)
            except nvml.NVMLError_Uninitialized:
                raise
            except nvml.NVMLError as error:
                self._note_lost(self._ids.get(number), error)
                continue
            self._ids[number] = found.id
            yield found

    def _note_lost(self, gpu: str | None, error: Exception) -> None:
        """Keeps a GPU that is gone by the driver's own word, not by a question that failed."""
        nvml = self._nvml
        if gpu is not None and isinstance(
            error, (nvml.NVMLError_GpuIsLost, nvml.NVMLError_NotFound)
        ):
            self._lost.append(gpu)

    def _described(self, device: _Device, near: dict[str, dict[str, int]]) -> list[Gpu]:
        """Returns a GPU and its instances (MIG), which list the processes; nothing for a GPU that
        is lost meanwhile.
        """
        nvml, handle = self._nvml, device.handle
        try:
            trouble = self._trouble(handle)
            instances = [
                dataclasses.replace(one, parent=device.id, trouble=trouble)
                for one in filter(None, map(self._instance, self._instances(handle)))
            ]
            power = self._told("nvmlDeviceGetPowerUsage", handle)
            whole = self._measured(handle)
            whole = dataclasses.replace(
                whole,
                number=str(device.number),
                temperature=self._told(
                    "nvmlDeviceGetTemperature", handle, nvml.NVML_TEMPERATURE_GPU
                ),
                power=power / 1000 if power is not None else None,
                errors=self._told(
                    "nvmlDeviceGetTotalEccErrors",
                    handle,
                    nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
                    nvml.NVML_VOLATILE_ECC,
                ),
                trouble=trouble,
                cpus=self._cpus_near(device),
                near=near.get(device.id, {}),
                holders=() if instances else whole.holders,
            )
        except nvml.NVMLError_Uninitialized:
            raise
        except nvml.NVMLError as error:
            self._note_lost(device.id, error)
            return []
        return [whole, *instances]

    def _instance(self, handle: Any) -> Gpu | None:
        """Returns an instance; None where it has just been taken down."""
        nvml = self._nvml
        try:
            return self._measured(handle)
        except (nvml.NVMLError_GpuIsLost, nvml.NVMLError_Uninitialized):
            raise
        except nvml.NVMLError:
            return None

    def _measured(self, handle: Any) -> Gpu:
        """Returns what is known of GPUs and instances alike. One that has no memory of its own, but
        the machine's, has no figures of it.
        """
        nvml = self._nvml
        memory = self._told("nvmlDeviceGetMemoryInfo", handle)
        rates = self._told("nvmlDeviceGetUtilizationRates", handle)
        return Gpu(
            id=text_of(nvml.nvmlDeviceGetUUID(handle)),
            name=text_of(self._told("nvmlDeviceGetName", handle) or ""),
            total=int(memory.total) if memory is not None else 0,
            free=int(memory.free) if memory is not None else 0,
            utilization=rates.gpu / 100 if rates is not None else None,
            holders=self._holders(handle),
        )

    def _holders(self, handle: Any) -> tuple[GpuHolder, ...]:
        """Returns the processes; one that computes and draws is listed twice by NVML. Older drivers
        know only the second version of the question.
        """
        found: dict[int, int | None] = {}
        for question in _PROCESSES:
            listed = self._told(question, handle)
            if listed is None:
                listed = self._told(f"{question}_v2", handle)
            for process in listed or ():
                pid, used = int(process.pid), process.usedGpuMemory
                known = found.get(pid)
                found[pid] = known if used is None else max(int(used), known or 0)
        return tuple(GpuHolder(pid, used, name_of(pid)) for pid, used in found.items())

    def _instances(self, handle: Any) -> Iterator[Any]:
        nvml = self._nvml
        mode = self._told("nvmlDeviceGetMigMode", handle)
        if mode is None or mode[0] != nvml.NVML_DEVICE_MIG_ENABLE:
            return
        for place in range(self._told("nvmlDeviceGetMaxMigDeviceCount", handle) or 0):
            found = self._told("nvmlDeviceGetMigDeviceHandleByIndex", handle, place)
            if found is not None:
                yield found

    def _trouble(self, handle: Any) -> str:
        """Returns why the memory of a GPU cannot be relied on until it is reset; "" if it can."""
        nvml = self._nvml
        rows = self._told("nvmlDeviceGetRemappedRows", handle)
        if rows is not None and rows[3]:
            return "a row of its memory cannot be remapped"
        pages = self._told("nvmlDeviceGetRetiredPagesPendingStatus", handle)
        if (rows is not None and rows[2]) or pages == nvml.NVML_FEATURE_ENABLED:
            return "a row of its memory waits to be remapped: reset the GPU"
        return ""

    def _near(self, devices: list[_Device]) -> dict[str, dict[str, int]]:
        """Returns how close the GPUs are to each other, which does not change."""
        key = tuple(device.id for device in devices)
        if key not in self._levels:
            self._levels = {key: {one.id: self._levels_of(one, devices) for one in devices}}
        return self._levels[key]

    def _levels_of(self, one: _Device, devices: list[_Device]) -> dict[str, int]:
        ask, found = self._nvml.nvmlDeviceGetTopologyCommonAncestor, {}
        for other in devices:
            if other.id != one.id:
                try:
                    found[other.id] = int(ask(one.handle, other.handle))
                except self._nvml.NVMLError:
                    continue
        return found

    def _cpus_near(self, device: _Device) -> tuple[int, ...]:
        if device.id not in self._cpus:
            bus = self._told("nvmlDeviceGetPciInfo", device.handle)
            self._cpus[device.id] = cpus_of(text_of(bus.busId)) if bus is not None else ()
        return self._cpus[device.id]

    def _names_processes(self, gpus: list[Gpu]) -> bool:
        """Whether the pids are of this machine: they are, but in a container. A process that has
        just ended is listed a moment longer: only one that is unknown in two looks counts.
        """
        if not _is_in_container():
            return True
        held = [gpu for gpu in gpus if gpu.holders]
        strange = {h.pid for gpu in held for h in gpu.holders if not _is_here(h.pid)}
        before, self._strange_pids = self._strange_pids, strange
        if strange & (strange if before is None else before):
            return False
        hides = not held and any(gpu.used > _UNEXPLAINED_BYTES for gpu in gpus)
        return not hides


def cpus_of(bus: str, root: str = "/sys/bus/pci/devices") -> tuple[int, ...]:
    """Returns the CPUs next to a device, by its PCI address of NVML (`00000000:3B:00.0`)."""
    domain, _, place = bus.lower().partition(":")
    try:
        folder = f"{root}/{int(domain, 16):04x}:{place}"
        with open(f"{folder}/local_cpulist", encoding="ascii") as file:
            return _listed(file.read())
    except (OSError, ValueError):
        return ()


def _listed(text: str) -> tuple[int, ...]:
    """Returns the numbers of a list of the kernel: `0-3,8`."""
    found: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return tuple(found)


def _is_here(pid: int) -> bool:
    """Whether there is a process, also one that /proc hides."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _is_in_container() -> bool:
    try:
        return os.readlink("/proc/self/ns/pid") != _FIRST_PID_NAMESPACE
    except OSError:
        return False


def _without_names(snapshot: GpuSnapshot) -> GpuSnapshot:
    """Blanks the names: they are of other processes, which have the same pids here."""
    gpus = (
        dataclasses.replace(
            gpu, holders=tuple(dataclasses.replace(each, name="") for each in gpu.holders)
        )
        for gpu in snapshot.gpus
    )
    return dataclasses.replace(snapshot, gpus=tuple(gpus))
