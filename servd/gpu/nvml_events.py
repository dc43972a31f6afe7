"""Errors that NVIDIA's driver reports of GPUs (Xid), as they come."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from servd.wire.gpus import GpuFault

_WAIT_MILLISECONDS = 1000
_PAUSE_SECONDS = 1.0
"""After a wait that failed, as all do while a GPU is lost."""

_KEPT_FAULTS = 1000
"""A broken program can cause thousands of errors in a second."""


class NvmlEvents:
    """Waits for errors, in a thread."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self._found: deque[GpuFault] = deque(maxlen=_KEPT_FAULTS)

    def start(self, handles: Sequence[Any], wake: Callable[[], None]) -> None:
        """Registers for the errors of GPUs, where the driver supports it; `wake` is called in the
        thread.
        """
        nvml = self._nvml
        try:
            events = nvml.nvmlEventSetCreate()
        except nvml.NVMLError:
            return
        registered = [handle for handle in handles if self._registers(handle, events)]
        if registered:
            thread = threading.Thread(target=self._wait, args=(events, wake), daemon=True)
            thread.start()

    def take(self) -> list[GpuFault]:
        """Returns the errors since the last call."""
        found: list[GpuFault] = []
        while self._found:
            found.append(self._found.popleft())
        return found

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

    def _wait(self, events: Any, wake: Callable[[], None]) -> None:
        nvml = self._nvml
        while True:
            try:
                event = nvml.nvmlEventSetWait(events, _WAIT_MILLISECONDS)
                self._found.append(self._fault(event))
            except nvml.NVMLError_Timeout:
                continue
            except nvml.NVMLError:
                time.sleep(_PAUSE_SECONDS)
                continue
            wake()

    def _fault(self, event: Any) -> GpuFault:
        uuid = self._nvml.nvmlDeviceGetUUID(event.device)
        gpu = uuid.decode(errors="replace") if isinstance(uuid, bytes) else str(uuid)
        return GpuFault(gpu, int(event.eventData), f"Xid {int(event.eventData)}")
