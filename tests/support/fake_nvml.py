"""A module `pynvml` without a driver, with the names and the errors of nvidia-ml-py."""

# ruff: noqa: N802, N815  # the names are those of the module
from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

GIB = 1 << 30

_ERRORS = {
    "Uninitialized": 1, "NotSupported": 3, "NoPermission": 4, "DriverNotLoaded": 9, "Timeout": 10,
    "LibraryNotFound": 12, "GpuIsLost": 15, "NotFound": 6, "Unknown": 999,
}  # fmt: skip


class NvmlError(Exception):
    """`pynvml.NVMLError`: what it is, is in `value`."""

    value = 999

    def __str__(self) -> str:
        return type(self).__name__

    def __eq__(self, other: object) -> bool:
        return bool(self.value == other.value)  # type: ignore[attr-defined]  # as nvidia-ml-py does

    __hash__ = None  # type: ignore[assignment]


def fake_device(number: int, **fields: Any) -> SimpleNamespace:
    """A GPU, or an instance, as `FakeNvml` knows it. `lost`: it has fallen off the bus. Fields that
    are None are not supported by it.
    """
    return SimpleNamespace(
        **{
            "uuid": f"GPU-{number}",
            "name": "NVIDIA H100 80GB HBM3",
            "total": 80 * GIB,
            "free": 79 * GIB,
            "compute": [],
            "graphics": [],
            "mps": [],
            "rates": 42,
            "temperature": 55,
            "milliwatts": 123_400,
            "ecc": 0,
            "rows": (0, 0, 0, 0),
            "retired": 0,
            "mig": None,
            "instances": [],
            "levels": {},
            "bus": f"00000000:{number:02X}:00.0",
            "lost": False,
            "fails": False,
            "events": 0xF8,
            **fields,
        }
    )


def process(pid: int, memory: int | None) -> SimpleNamespace:
    """A process as NVML lists it."""
    return SimpleNamespace(pid=pid, usedGpuMemory=memory, gpuInstanceId=None)


class MismatchError(Exception):
    """`pynvml.NVMLLibraryMismatchError`, which is no `NVMLError`."""


class FakeNvml:
    """Stands for the module. `is_old_driver`: it knows only version 2 of the lists of processes."""

    NVMLLibraryMismatchError = MismatchError
    is_old_driver = False

    NVMLError = NvmlError
    NVML_TEMPERATURE_GPU = 0
    NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 1
    NVML_VOLATILE_ECC = 0
    NVML_DEVICE_MIG_ENABLE = 1
    NVML_FEATURE_ENABLED = 1
    nvmlEventTypeXidCriticalError = 8

    def __init__(self, *devices: SimpleNamespace) -> None:
        self.devices = list(devices)
        self.fails: type[NvmlError] | None = None
        """Raised by every question about the whole machine."""
        self.events: list[Any] = []
        self.registered: list[str] = []

    # what is asked of the machine

    def nvmlInit(self) -> None:
        self._fail()

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.1"

    def nvmlDeviceGetCount(self) -> int:
        self._fail()
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> SimpleNamespace:
        return self._sound(self.devices[index])

    # what is asked of a GPU

    def nvmlDeviceGetUUID(self, handle: SimpleNamespace) -> str:
        return str(self._sound(handle).uuid)

    def nvmlDeviceGetName(self, handle: SimpleNamespace) -> str:
        return str(handle.name)

    def nvmlDeviceGetMemoryInfo(self, handle: SimpleNamespace) -> SimpleNamespace:
        return SimpleNamespace(total=self._value(handle, "total"), free=handle.free, used=0)

    def nvmlDeviceGetUtilizationRates(self, handle: SimpleNamespace) -> SimpleNamespace:
        return SimpleNamespace(gpu=self._value(handle, "rates"), memory=0)

    def nvmlDeviceGetTemperature(self, handle: SimpleNamespace, sensor: int) -> int:
        assert sensor == self.NVML_TEMPERATURE_GPU
        return int(self._value(handle, "temperature"))

    def nvmlDeviceGetPowerUsage(self, handle: SimpleNamespace) -> int:
        return int(self._value(handle, "milliwatts"))

    def nvmlDeviceGetTotalEccErrors(self, handle: SimpleNamespace, kind: int, counter: int) -> int:
        assert (kind, counter) == (1, 0)
        return int(self._value(handle, "ecc"))

    def nvmlDeviceGetComputeRunningProcesses(self, handle: SimpleNamespace) -> Any:
        return self._processes(handle, "compute")

    def nvmlDeviceGetComputeRunningProcesses_v2(self, handle: SimpleNamespace) -> Any:
        return self._value(handle, "compute")

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: SimpleNamespace) -> Any:
        return self._processes(handle, "graphics")

    def nvmlDeviceGetGraphicsRunningProcesses_v2(self, handle: SimpleNamespace) -> Any:
        return self._value(handle, "graphics")

    def nvmlDeviceGetMPSComputeRunningProcesses(self, handle: SimpleNamespace) -> Any:
        return self._processes(handle, "mps")

    def _processes(self, handle: SimpleNamespace, kind: str) -> Any:
        if self.is_old_driver:
            raise MismatchError
        return self._value(handle, kind)

    def nvmlDeviceGetMigMode(self, handle: SimpleNamespace) -> list[int]:
        return [self._value(handle, "mig"), handle.mig]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: SimpleNamespace) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: SimpleNamespace, index: int) -> Any:
        if index >= len(handle.instances):
            raise self.error("NotSupported")
        return handle.instances[index]

    def nvmlDeviceGetRemappedRows(self, handle: SimpleNamespace) -> Any:
        return self._value(handle, "rows")

    def nvmlDeviceGetRetiredPagesPendingStatus(self, handle: SimpleNamespace) -> int:
        return int(self._value(handle, "retired"))

    def nvmlDeviceGetTopologyCommonAncestor(
        self, handle: SimpleNamespace, other: SimpleNamespace
    ) -> int:
        if other.uuid not in handle.levels:
            raise self.error("NotSupported")
        return int(handle.levels[other.uuid])

    def nvmlDeviceGetPciInfo(self, handle: SimpleNamespace) -> SimpleNamespace:
        return SimpleNamespace(busId=self._value(handle, "bus"))

    # events

    def nvmlEventSetCreate(self) -> str:
        return "events"

    def nvmlDeviceGetSupportedEventTypes(self, handle: SimpleNamespace) -> int:
        return int(self._value(handle, "events"))

    def nvmlDeviceRegisterEvents(self, handle: SimpleNamespace, types: int, events: str) -> None:
        assert (types, events) == (8, "events")
        self.registered.append(handle.uuid)

    def nvmlEventSetWait(self, events: str, milliseconds: int) -> SimpleNamespace:
        if not self.events:
            time.sleep(0.01)
            raise self.error("Timeout")
        found = self.events.pop(0)
        if isinstance(found, NvmlError):
            raise found
        device, xid = found
        return SimpleNamespace(device=device, eventType=8, eventData=xid)

    def error(self, name: str) -> NvmlError:
        """An error of this name: `GpuIsLost`."""
        found: NvmlError = getattr(self, f"NVMLError_{name}")()
        return found

    def _fail(self) -> None:
        if self.fails is not None:
            raise self.fails

    def _sound(self, handle: SimpleNamespace) -> SimpleNamespace:
        if handle.fails:
            raise self.error("Unknown")
        if handle.lost:
            raise self.error("GpuIsLost")
        return handle

    def _value(self, handle: SimpleNamespace, name: str) -> Any:
        value = getattr(self._sound(handle), name)
        if value is None:
            raise self.error("NotSupported")
        return value


for _name, _value in _ERRORS.items():
    _error = type(f"NVMLError_{_name}", (NvmlError,), {"value": _value})
    setattr(FakeNvml, _error.__name__, _error)
