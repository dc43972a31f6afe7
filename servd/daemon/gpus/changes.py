"""What shows only in the difference of two looks: GPUs that are gone, errors that are new. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from servd.wire.gpus import Gpu, GpuFault, GpuSnapshot

_LOOKS_UNTIL_GONE = 3
"""A question that fails once makes no GPU vanish, unless the driver itself calls it lost."""

_GONE = "the driver does not list it any more"


class GpuChanges:
    """Compares each snapshot with those before."""

    def __init__(self) -> None:
        self._gpus: dict[str, Gpu] = {}
        self._missing: dict[str, int] = {}
        """Looks in which a GPU lacked."""
        self._errors: dict[str, int] = {}

    def settle(self, snapshot: GpuSnapshot) -> tuple[GpuSnapshot, list[GpuFault]]:
        """Returns the snapshot, with GPUs that lack in it but are not gone as they were last, and
        the faults that it shows.
        """
        now, lost = snapshot.by_id, set(snapshot.lost)
        missing = {each: self._missing.get(each, 0) + 1 for each in self._gpus.keys() - now.keys()}
        gone = {
            each for each, looks in missing.items() if each in lost or looks >= _LOOKS_UNTIL_GONE
        }
        if not now and len(gone) < len(missing):
            gone &= lost  # the driver goes GPU by GPU: that is no fault of the first ones
        faults = [GpuFault(each, 0, _GONE) for each in self._gpus if each in gone]
        faults += self._with_more_errors(snapshot)
        kept = [gpu for each, gpu in self._gpus.items() if each in missing and each not in gone]
        if kept:
            places = {each: place for place, each in enumerate(self._gpus)}
            together = sorted((*snapshot.gpus, *kept), key=lambda gpu: places.get(gpu.id, 1 << 30))
            snapshot = dataclasses.replace(snapshot, gpus=tuple(together))
        self._gpus = snapshot.by_id
        self._missing = {each: looks for each, looks in missing.items() if each not in gone}
        return snapshot, faults

    def _with_more_errors(self, snapshot: GpuSnapshot) -> Iterator[GpuFault]:
        """Yields GPUs with more memory errors than were told last. The counter starts again with
        the driver: fewer are none.
        """
        for gpu in snapshot.gpus:
            if gpu.errors is None:
                continue
            before = self._errors.get(gpu.id)
            self._errors[gpu.id] = gpu.errors
            if before is not None and gpu.errors > before:
                text = f"uncorrectable memory errors rose from {before} to {gpu.errors}"
                yield GpuFault(gpu.id, 0, text)
