"""Errors that NVIDIA's driver reports of GPUs (Xid), as they come."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from servd.wire.gpus import GpuFault

_WAIT_MILLISECONDS = 1000
_PAUSE_SECONDS = 1.0
"""After a wait that failed, as all do while a GPU is lost."""

_JOINED_SECONDS = 1.0
"""Time in which equal errors are one: a broken program can cause thousands in a second."""


class NvmlEvents:
    """Waits for errors, in a thread, and tells each at once: other questions may hang then."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self._ids: dict[int, str] = {}
        """UUIDs by handle: a GPU that is lost does not tell its own."""
        self._told: dict[tuple[str, int], float] = {}

    def start(self, handles: Mapping[str, Any], tell: Callable[[GpuFault], None]) -> None:
        """Registers for the errors of GPUs, where the driver supports it; `tell` is called in the
        thread.
        """
        nvml = self._nvml
        try:
            events = nvml.nvmlEventSetCreate()
        except nvml.NVMLError:
            return
        for gpu, handle in handles.items():
            if self._registers(handle, events):
                self._ids[_value_of(handle)] = gpu
        if self._ids:
            thread = threading.Thread(target=self._wait, args=(events, tell), daemon=True)
            thread.start()

    def _registers(self, handle: Any, events: Any) -> bool:
        nvml = self._nvml
        try:
            wanted = nvml.nvmlEventTypeXidCriticalError
            if not nvml.nvmlDeviceGetSupportedEventTypes(handle) & wanted:
                return False
            nvml.nvmlDeviceRegisterEvents(handle, wanted, events)
        except nvml.NVMLError:
            return False
        return True

    def _wait(self, events: Any, tell: Callable[[GpuFault], None]) -> None:
        nvml = self._nvml
        while True:
            try:
                event = nvml.nvmlEventSetWait(events, _WAIT_MILLISECONDS)
            except nvml.NVMLError_Timeout:
                continue
            except nvml.NVMLError:
                time.sleep(_PAUSE_SECONDS)
                continue
            gpu, xid = self._ids.get(_value_of(event.device)), int(event.eventData)
            if gpu is not None and self._is_new(gpu, xid):
                tell(GpuFault(gpu, xid, f"Xid {xid}"))

    def _is_new(self, gpu: str, xid: int) -> bool:
        now, key = time.monotonic(), (gpu, xid)
        if now - self._told.get(key, -_JOINED_SECONDS) < _JOINED_SECONDS:
            return False
        self._told[key] = now
        return True


def _value_of(handle: Any) -> int:
    """Returns what a handle points to: two of one GPU are different objects."""
    try:
        return ctypes.cast(handle, ctypes.c_void_p).value or 0
    except (TypeError, ctypes.ArgumentError):
        return id(handle)


def text_of(given: Any) -> str:
    """Returns a text of NVML: bytes in older versions of pynvml."""
    return given.decode(errors="replace") if isinstance(given, bytes) else str(given)
