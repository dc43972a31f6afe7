"""What answers the helper's questions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from servd.wire.gpus import GpuFault, GpuSnapshot
from servd.wire.names import FAKE


class BackendError(Exception):
    """The driver cannot be asked; the message tells why."""


class NoDriverError(BackendError):
    """There is no driver on this machine, so there are no GPUs."""


class Backend(Protocol):
    """A driver, or what takes its place."""

    def look(self) -> GpuSnapshot:
        """Returns the GPUs at this moment. Raises `BackendError`."""

    def faults(self) -> list[GpuFault]:
        """Returns the errors that looks have found since the last call."""

    def watch(self, tell: Callable[[GpuFault], None]) -> None:
        """Calls `tell`, in any thread, with errors that come by themselves."""


def open_backend(name: str) -> Backend:
    """Returns the backend `nvml` or `fake:FILE`. Raises `BackendError`."""
    if name.startswith(FAKE):
        from servd.gpu.fake import FakeBackend

        return FakeBackend(name.removeprefix(FAKE))
    if name != "nvml":
        raise BackendError(f"unknown backend {name}: write nvml or fake:FILE")
    from servd.gpu.nvml import NvmlBackend

    return NvmlBackend()
