"""GPUs that a file describes, for tests on machines without any. See `FakeBackend`."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from servd.core.processes import started_at
from servd.gpu.backend import BackendError, NoDriverError
from servd.wire.gpus import GpuFault, GpuSnapshot, snapshot_from_json

_HANG_SECONDS = 0.02
_DELIVERED = "delivered"


class FakeBackend:
    """Reads `path` at every look: a snapshot in JSON, with `faults` (each with a `serial`, and
    delivered once) and `hang`, which lets every look wait. Processes add what they hold in
    `path`.d/PID.json: {"gpu": ID OR NUMBER, "memory": BYTES}. As with a real driver, what dead
    processes held is free.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._folder = f"{path}.d"
        self._faults: list[dict[str, Any]] = []

    def look(self) -> GpuSnapshot:
        try:
            document = self._read()
            while document.get("hang"):
                time.sleep(_HANG_SECONDS)
                document = self._read()
            self._faults = list(document.pop("faults", ()))
            held = list(self._held())
            document["gpus"] = [_measured(gpu, held) for gpu in document["gpus"]]
            return snapshot_from_json(document)
        except FileNotFoundError as error:
            raise NoDriverError(f"{self._path}: {error!r}") from None
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise BackendError(f"{self._path}: {error!r}") from None

    def faults(self) -> list[GpuFault]:
        if not self._faults:
            return []
        delivered = self._last_delivered()
        new = [fault for fault in self._faults if fault["serial"] > delivered]
        if new:
            last = max(fault["serial"] for fault in new)
            with open(os.path.join(self._folder, _DELIVERED), "w", encoding="ascii") as file:
                file.write(str(last))
        return [GpuFault(each["gpu"], each["xid"], each.get("text", "")) for each in new]

    def watch(self, tell: Callable[[GpuFault], None]) -> None:
        """Does nothing: faults are found by looks."""

    def _read(self) -> dict[str, Any]:
        with open(self._path, encoding="utf-8") as file:
            return dict(json.load(file))

    def _held(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields the GPU, and the holder, of every file of a process."""
        with contextlib.suppress(FileNotFoundError):
            for name in sorted(os.listdir(self._folder)):
                pid, _, kind = name.partition(".")
                if pid.isdigit() and kind == "json":
                    with open(os.path.join(self._folder, name), encoding="utf-8") as file:
                        given = json.load(file)
                    yield str(given["gpu"]), {"pid": int(pid), "memory": given["memory"]}

    def _last_delivered(self) -> int:
        try:
            with open(os.path.join(self._folder, _DELIVERED), encoding="ascii") as file:
                return int(file.read())
        except (OSError, ValueError):
            return 0


def _measured(gpu: Mapping[str, Any], held: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Returns a GPU with the holders that live, and the memory that they leave free."""
    mine = [holder for name, holder in held if name in (gpu["id"], gpu.get("number") or None)]
    holders = [each for each in (*gpu.get("holders", ()), *mine) if started_at(each["pid"])]
    used = sum(each.get("memory") or 0 for each in holders)
    total = gpu.get("total", 0)
    return {"free": max(0, total - used), "total": total, **gpu, "holders": holders}
