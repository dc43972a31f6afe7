"""Refuses what no assignment of GPUs can satisfy, with the sum. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from servd.plan.gpu_assignment import TOLERANCE, assign
from servd.plan.gpu_inventory import CONTEXT_BYTES, GIB, GpuError, GpuInventory, gib
from servd.plan.gpu_requests import GpuRequest

_ONE_INSTANCE = "a CUDA process sees one MIG instance"


def require_possible(wanted: Sequence[GpuRequest], gpus: GpuInventory) -> None:
    """Raises `GpuError` for requests that no assignment can satisfy."""
    for request in wanted:
        _require_sense(request, gpus)
    named = {each for request in wanted for each in request.named}
    counted = [request for request in wanted if not request.named]
    asked, free = 0.0, len(gpus.ids) - len(named)
    for request in counted:
        asked += request.each * request.portions
        if asked > free + TOLERANCE:
            are = "is" if len(named) == 1 else "are"
            pinned = f", and {len(named)} of them {are} pinned" if named else ""
            message = f"{_total_text(counted)}, but {_available_text(gpus)}{pinned}"
            raise GpuError(request.service, message)


def _require_sense(request: GpuRequest, gpus: GpuInventory) -> None:
    if request.each > 1 and request.each != int(request.each):
        message = f"write a whole number of GPUs or a share of one, not {request.each:g}"
        raise GpuError(request.service, message)
    unknown = [each for each in request.named if each not in gpus.ids]
    if unknown and not gpus.ids:
        raise GpuError(request.service, f"unknown GPU {unknown[0]}: {_available_text(gpus)}")
    if unknown:
        there = f"{_available_text(gpus)} ({', '.join(map(gpus.visible, gpus.ids))})"
        raise GpuError(request.service, f"unknown GPU {', '.join(unknown)}: {there}")
    if len(set(request.named)) < len(request.named):
        twice = next(each for each in request.named if request.named.count(each) > 1)
        raise GpuError(request.service, f"GPU {gpus.visible(twice)} is named twice")
    if len(request.named) > 1 and any(map(gpus.is_instance, request.named)):
        message = f"{_ONE_INSTANCE}, but this gives it {len(request.named)} GPUs"
        raise GpuError(request.service, message)
    whole = [each for each in gpus.ids if not gpus.is_instance(each)]
    if request.each > len(whole) and len(whole) < len(gpus.ids) and request.each > 1:
        message = f"{_ONE_INSTANCE}, but each worker is to get {request.each:g} GPUs"
        raise GpuError(request.service, message)
    largest = max(map(gpus.total, gpus.ids), default=0)
    if largest and not request.named and request.need(largest) > largest:
        raise GpuError(request.service, _memory_text([request], gpus))


def refusal(wanted: Sequence[GpuRequest], gpus: GpuInventory) -> GpuError:
    """Returns the error for requests that are possible one by one, but not together, at the first
    service that is too much.
    """
    last = next(
        (
            wanted[: index + 1]
            for index in range(len(wanted))
            if assign(wanted[: index + 1], gpus, {}) is None
        ),
        wanted,
    )
    if _fits_without_memory(last, gpus):
        competing = [request for request in last if request.need(GIB) and not request.named]
        return GpuError(last[-1].service, _memory_text(competing or last, gpus))
    there = f"{_available_text(gpus)}, and a share cannot span two"
    return GpuError(last[-1].service, f"{_total_text(wanted)}, but {there}")


def _fits_without_memory(wanted: Sequence[GpuRequest], gpus: GpuInventory) -> bool:
    unknown = GpuInventory(gpus.ids)
    several_instances = any(r.each > 1 for r in wanted) and any(map(gpus.is_instance, gpus.ids))
    return not several_instances and assign(wanted, unknown, {}) is not None


def _memory_text(wanted: Sequence[GpuRequest], gpus: GpuInventory) -> str:
    """Returns `llm 70GiB + ocr 9GiB, but a GPU has 79.6 GiB, 0.5 GiB of it for each ...`."""
    totals = sorted({gpus.total(each) for each in gpus.ids} - {0}, reverse=True)
    asked = " + ".join(request.memory_text(totals[0]) for request in wanted)
    have = " or ".join(gib(total) for total in totals)
    count = len(gpus.ids)
    there = "a GPU has" if count == 1 or len(wanted) == 1 == wanted[0].portions else ""
    there = there or f"each of the {count} GPUs has"
    context = f"{gib(CONTEXT_BYTES)} GiB of it for each worker's CUDA context"
    return f"{asked}, but {there} {have} GiB, {context}"


def _total_text(wanted: Sequence[GpuRequest]) -> str:
    """Returns `3.5 GPUs requested (web 2 x 1 + ocr 3 x 0.5)`."""
    counted = [request for request in wanted if not request.named]
    total = sum(request.each * request.portions for request in counted)
    noun = "GPU" if total == 1 else "GPUs"
    return f"{total:g} {noun} requested ({' + '.join(map(str, counted))})"


def _available_text(gpus: GpuInventory) -> str:
    count = len(gpus.ids)
    if gpus.unknown:
        known = f"only {count}" if count else "no"
        are = "GPU is" if count == 1 else "GPUs are"
        return f"{known} {are} known ({gpus.unknown})"
    return f"this machine has {count or 'no'} GPU{'' if count == 1 else 's'}"
