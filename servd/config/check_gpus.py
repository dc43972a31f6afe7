"""Rules about what a service says of GPUs."""

from __future__ import annotations

from collections.abc import Iterator

from servd.config.gpu_table import GpuNeeds
from servd.config.service import Service
from servd.config.tree import Path
from servd.config.validation_context import ValidationContext
from servd.core.diagnostics import Diagnostic

_MOST_GPUS = 1024
_VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"


def gpus_make_sense(checked: ValidationContext) -> Iterator[Diagnostic]:
    """A number of GPUs is whole, or the share of one GPU."""
    for name, service in checked.config.services.items():
        path: Path = ("services", name)
        asked = service.gpus
        if isinstance(asked, float) and (asked < 0 or (asked > 1 and asked != int(asked))):
            message = f"must be a whole number or a share of one GPU such as 0.5, got {asked:g}"
            yield checked.problem((*path, "gpus"), message)
        if isinstance(asked, GpuNeeds):
            yield from _needs_make_sense(checked, (*path, "gpus"), asked)
        if asked and _VISIBLE_GPUS in service.env:
            message = f"this value is not used: gpus sets {_VISIBLE_GPUS}"
            at = (*path, "env", _VISIBLE_GPUS)
            yield checked.problem(at, message, severity="warning", code="gpus")
        yield from _what_needs_gpus(checked, path, service)
    there = checked.config.daemon.gpus
    if isinstance(there, float) and not (there == int(there) and 0 <= there <= _MOST_GPUS):
        message = f"must be a whole number of GPUs from 0 to {_MOST_GPUS}, got {there:g}"
        yield checked.problem(("daemon", "gpus"), message)


def _needs_make_sense(
    checked: ValidationContext, path: Path, asked: GpuNeeds
) -> Iterator[Diagnostic]:
    if asked.share and asked.count:
        message = "cannot be combined with share: a worker has whole GPUs, or a share of one"
        yield checked.problem((*path, "count"), message)
    if asked.memory == 0:
        message = "must be more than 0: it is what a worker needs"
        yield checked.problem((*path, "memory"), message)
    if asked.topology == "near" and asked.count < 2:
        message = "needs a count of at least 2: one GPU is near no other"
        yield checked.problem((*path, "topology"), message)


def _what_needs_gpus(
    checked: ValidationContext, path: Path, service: Service
) -> Iterator[Diagnostic]:
    """Keys that have no effect on a service without GPUs. BentoML code can ask for some itself."""
    if service.gpus not in (0, "none") or service.bento:
        return
    hint = "set gpus, such as gpus = 1"
    if service.cpu_affinity == "gpu" and checked.is_own((*path, "cpu_affinity")):
        message = "has no effect without gpus"
        yield checked.problem((*path, "cpu_affinity"), message, hint)
    limits = service.limits
    limited = limits is not None and limits.gpu_memory is not None
    if limited and checked.is_own((*path, "limits", "gpu_memory")):
        yield checked.problem((*path, "limits", "gpu_memory"), "has no effect without gpus", hint)
