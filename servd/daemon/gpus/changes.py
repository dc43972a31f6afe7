"""Faults of GPUs that show only in the difference of two looks. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from servd.wire.gpus import GpuFault, GpuSnapshot


def faults_between(before: GpuSnapshot, after: GpuSnapshot) -> Iterator[GpuFault]:
    """Yields a fault for each GPU that is gone, and for each with more memory errors than before.
    The counter starts again with the driver: fewer are none.
    """
    now = after.by_id
    for gpu in before.gpus:
        same = now.get(gpu.id)
        if same is None:
            yield GpuFault(gpu.id, 0, "the driver does not list it any more")
        elif gpu.errors is not None and (same.errors or 0) > gpu.errors:
            text = f"uncorrectable memory errors rose from {gpu.errors} to {same.errors}"
            yield GpuFault(gpu.id, 0, text)
