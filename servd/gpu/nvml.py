"""NVIDIA's driver, by its library NVML."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from servd.core.processes import name_of
from servd.core.quick_dataclass import dataclass
from servd.gpu.backend import BackendError, NoDriverError
from servd.gpu.nvml_events import NvmlEvents
from servd.wire.gpus import Gpu, GpuFault, GpuHolder, GpuSnapshot

T = TypeVar("T")

_UNEXPLAINED_BYTES = 1 << 30
"""More memory than the driver itself takes: some process holds it."""

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
            self._driver = _text(pynvml.nvmlSystemGetDriverVersion())
        except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded) as error:
            raise NoDriverError(f"NVML: {error}") from None
        except pynvml.NVMLError as error:
            raise BackendError(f"NVML: {error}") from None
        self._events = NvmlEvents(pynvml)
        self._levels: dict[tuple[str, ...], dict[str, dict[str, int]]] = {}
        self._cpus: dict[str, tuple[int, ...]] = {}
        self._strange_pids: set[int] | None = None

    def look(self) -> GpuSnapshot:
        try:
            devices = list(self._devices())
            near = self._near(devices)
            gpus = [gpu for device in devices for gpu in self._described(device, near)]
        except self._nvml.NVMLError as error:
            raise BackendError(f"NVML: {error}") from None
        return GpuSnapshot(tuple(gpus), self._driver, self._names_processes(gpus))

    def faults(self) -> list[GpuFault]:
        return self._events.take()

    def watch(self, wake: Callable[[], None]) -> None:
        with contextlib.suppress(self._nvml.NVMLError):
            self._events.start([device.handle for device in self._devices()], wake)

    def _told(self, question: Callable[..., T], *given: Any) -> T | None:
        """Returns an answer; None where the driver or the GPU does not know it."""
        nvml = self._nvml
        try:
            return question(*given)
        except (nvml.NVMLError_GpuIsLost, nvml.NVMLError_Uninitialized):
            raise
        except nvml.NVMLError:
            return None

    def _devices(self) -> Iterator[_Device]:
        """Yields the GPUs that answer, in the order of the PCI bus."""
        nvml = self._nvml
        for number in range(nvml.nvmlDeviceGetCount()):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(number)
                self._told(nvml.nvmlDeviceGetMemoryInfo, handle)  # fails where it is lost
                yield _Device(number, _text(nvml.nvmlDeviceGetUUID(handle)), handle)
            except nvml.NVMLError_Uninitialized:
                raise
            except nvml.NVMLError:
                continue

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
            power = self._told(nvml.nvmlDeviceGetPowerUsage, handle)
            whole = self._measured(handle)
            whole = dataclasses.replace(
                whole,
                number=str(device.number),
                temperature=self._told(
                    nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU
                ),
                power=power / 1000 if power is not None else None,
                errors=self._told(
                    nvml.nvmlDeviceGetTotalEccErrors,
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
        except nvml.NVMLError:
            return []
        return [whole, *instances]

    def _instance(self, handle: Any) -> Gpu | None:
        """Returns an instance; None where it has just been taken down."""
        return self._told(self._measured, handle)

    def _measured(self, handle: Any) -> Gpu:
        """Returns what is known of GPUs and instances alike. One that has no memory of its own, but
        the machine's, has no figures of it.
        """
        nvml = self._nvml
        memory = self._told(nvml.nvmlDeviceGetMemoryInfo, handle)
        rates = self._told(nvml.nvmlDeviceGetUtilizationRates, handle)
        return Gpu(
            id=_text(nvml.nvmlDeviceGetUUID(handle)),
            name=_text(self._told(nvml.nvmlDeviceGetName, handle) or ""),
            total=int(memory.total) if memory is not None else 0,
            free=int(memory.free) if memory is not None else 0,
            utilization=rates.gpu / 100 if rates is not None else None,
            holders=self._holders(handle),
        )

    def _holders(self, handle: Any) -> tuple[GpuHolder, ...]:
        """Returns the processes; one that computes and draws is listed twice by NVML."""
        nvml = self._nvml
        found: dict[int, int | None] = {}
        for listed in (
            nvml.nvmlDeviceGetComputeRunningProcesses,
            nvml.nvmlDeviceGetGraphicsRunningProcesses,
        ):
            for process in self._told(listed, handle) or ():
                pid, used = int(process.pid), process.usedGpuMemory
                known = found.get(pid)
                found[pid] = known if used is None else max(int(used), known or 0)
        return tuple(GpuHolder(pid, used, name_of(pid)) for pid, used in found.items())

    def _instances(self, handle: Any) -> Iterator[Any]:
        nvml = self._nvml
        mode = self._told(nvml.nvmlDeviceGetMigMode, handle)
        if mode is None or mode[0] != nvml.NVML_DEVICE_MIG_ENABLE:
            return
        for place in range(self._told(nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
            found = self._told(nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, place)
            if found is not None:
                yield found

    def _trouble(self, handle: Any) -> str:
        """Returns why the memory of a GPU cannot be relied on until it is reset; "" if it can."""
        nvml = self._nvml
        rows = self._told(nvml.nvmlDeviceGetRemappedRows, handle)
        if rows is not None and rows[3]:
            return "a row of its memory cannot be remapped"
        pages = self._told(nvml.nvmlDeviceGetRetiredPagesPendingStatus, handle)
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
            bus = self._told(self._nvml.nvmlDeviceGetPciInfo, device.handle)
            self._cpus[device.id] = cpus_of(_text(bus.busId)) if bus is not None else ()
        return self._cpus[device.id]

    def _names_processes(self, gpus: list[Gpu]) -> bool:
        """Whether the pids are of this machine. A process that has just ended is listed a moment
        longer: only one that is unknown in two looks counts.
        """
        held = [gpu for gpu in gpus if gpu.holders]
        strange = {h.pid for gpu in held for h in gpu.holders if not _is_here(h.pid)}
        before, self._strange_pids = self._strange_pids, strange
        if strange & (strange if before is None else before):
            return False
        hides = not held and any(gpu.used > _UNEXPLAINED_BYTES for gpu in gpus)
        return not (hides and _is_in_container())


def cpus_of(bus: str, root: str = "/sys/bus/pci/devices") -> tuple[int, ...]:
    """Returns the CPUs next to a device, by its PCI address of NVML (`00000000:3B:00.0`)."""
    domain, _, place = bus.lower().partition(":")
    try:
        with open(f"{root}/{domain[-4:]}:{place}/local_cpulist", encoding="ascii") as file:
            return _numbers(file.read())
    except (OSError, ValueError):
        return ()


def _numbers(text: str) -> tuple[int, ...]:
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


def _text(given: Any) -> str:
    """Returns a text of NVML: bytes in older versions of pynvml."""
    return given.decode(errors="replace") if isinstance(given, bytes) else str(given)
