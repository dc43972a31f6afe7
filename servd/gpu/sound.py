"""Makes figures of a driver such as a report may have. Pure."""

from __future__ import annotations

import dataclasses
import math

from servd.wire.gpu_messages import MOST_PID
from servd.wire.gpus import Gpu, GpuHolder, GpuSnapshot

_MOST = (1 << 63) - 1
"""Larger figures are a driver's way to say that it does not know."""


def sound(snapshot: GpuSnapshot) -> GpuSnapshot:
    """Returns a snapshot without figures that cannot be: one bad figure must not hide the rest."""
    return dataclasses.replace(snapshot, gpus=tuple(map(_sound_gpu, snapshot.gpus)))


def _sound_gpu(gpu: Gpu) -> Gpu:
    total, free = _count(gpu.total), _count(gpu.free)
    known = total is not None and free is not None
    return dataclasses.replace(
        gpu,
        total=total if total is not None and known else 0,
        free=min(free, total) if total is not None and free is not None else 0,
        utilization=_figure(gpu.utilization),
        temperature=_figure(gpu.temperature),
        power=_figure(gpu.power),
        errors=_count(gpu.errors),
        near={other: level for other, level in gpu.near.items() if _count(level) is not None},
        holders=tuple(_sound_holder(each) for each in gpu.holders if 0 <= each.pid <= MOST_PID),
    )


def _sound_holder(holder: GpuHolder) -> GpuHolder:
    return dataclasses.replace(holder, memory=_count(holder.memory))


def _count(value: int | None) -> int | None:
    return value if type(value) is int and 0 <= value <= _MOST else None


def _figure(value: float | None) -> float | None:
    return value if type(value) in (int, float) and math.isfinite(value) else None  # type: ignore[arg-type]
