"""Messages between the daemon and its GPU helper: JSON objects, one a line, on a stream socket.

The daemon sends `{"look": N}`. The helper sends `{"snapshot": {...}}`, with `look` if it answers,
`{"fault": {...}}`, and `{"failure": "text"}` before it ends, with `absent` if there is no driver.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from servd.core.quick_dataclass import dataclass
from servd.wire.gpus import (
    Gpu,
    GpuFault,
    GpuHolder,
    GpuSnapshot,
    fault_from_json,
    snapshot_from_json,
)

MODULE = "servd.gpu"
"""The program of the helper."""

MOST_PID = (1 << 31) - 1
"""No process has a larger one: pid_t is an int."""

_MOST_BYTES = 4 << 20
"""Longest line: thousands of processes on each of many GPUs."""


@dataclass(frozen=True, slots=True)
class GpuReport:
    """A message of the helper: one of `snapshot`, `fault` and `failure`. `look` is the number of
    the question that the snapshot answers. `is_absent`: it fails because there is no driver.
    """

    snapshot: GpuSnapshot | None = None
    look: int | None = None
    fault: GpuFault | None = None
    failure: str = ""
    is_absent: bool = False

    def line(self) -> bytes:
        """Returns it as it is sent."""
        message: dict[str, Any] = {}
        if self.snapshot is not None:
            message["snapshot"] = dataclasses.asdict(self.snapshot)
        if self.look is not None:
            message["look"] = self.look
        if self.fault is not None:
            message["fault"] = dataclasses.asdict(self.fault)
        if self.failure:
            message["failure"] = self.failure
            message["absent"] = self.is_absent
        return line_of(message)


def line_of(message: Mapping[str, Any]) -> bytes:
    """Returns a message as it is sent."""
    return json.dumps(message).encode() + b"\n"


class GpuLines:
    """Puts the bytes that arrive together to lines."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yields the lines that are complete. Raises ValueError for one without an end."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        yield from lines
        if len(self._rest) > _MOST_BYTES:
            raise ValueError(f"a line of more than {_MOST_BYTES} bytes")


def report_of(line: bytes) -> GpuReport:
    """Returns the message of a line, with values of the right types. Raises ValueError."""
    try:
        message = json.loads(line)
        look = message.get("look")
        if "snapshot" in message:
            snapshot = snapshot_from_json(message["snapshot"])
            _require(_is_sound(snapshot), "a snapshot with wrong values")
            return GpuReport(snapshot=snapshot, look=look if _is_count(look) else None)
        if "fault" in message:
            fault = fault_from_json(message["fault"])
            texts = isinstance(fault.gpu, str) and isinstance(fault.text, str)
            _require(texts and _is_count(fault.xid), "a fault with wrong values")
            return GpuReport(fault=fault)
        return GpuReport(failure=str(message["failure"]), is_absent=message.get("absent") is True)
    except (TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"no message: {error!r}") from None


def _require(holds: bool, what: str) -> None:  # a condition
    if not holds:
        raise ValueError(what)


def _is_sound(snapshot: GpuSnapshot) -> bool:
    """Whether the values are of the types that they are declared with."""
    return (
        isinstance(snapshot.driver, str)
        and isinstance(snapshot.names_processes, bool)
        and all(isinstance(each, str) for each in snapshot.lost)
        and all(map(_is_sound_gpu, snapshot.gpus))
        and len(snapshot.by_id) == len(snapshot.gpus)
    )


def _is_sound_gpu(gpu: Gpu) -> bool:
    texts = (gpu.id, gpu.number, gpu.name, gpu.parent, gpu.trouble)
    figures = (gpu.utilization, gpu.temperature, gpu.power)
    return (
        all(isinstance(text, str) for text in texts)
        and bool(gpu.id)
        and _is_count(gpu.total)
        and _is_count(gpu.free)
        and gpu.free <= gpu.total
        and all(figure is None or _is_figure(figure) for figure in figures)
        and (gpu.errors is None or _is_count(gpu.errors))
        and all(map(_is_count, gpu.cpus))
        and isinstance(gpu.near, dict)
        and all(map(_is_count, gpu.near.values()))
        and all(map(_is_sound_holder, gpu.holders))
    )


def _is_sound_holder(holder: GpuHolder) -> bool:
    return (
        _is_count(holder.pid)
        and holder.pid <= MOST_PID
        and (holder.memory is None or _is_count(holder.memory))
        and isinstance(holder.name, str)
    )


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _is_figure(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
