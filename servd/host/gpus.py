"""The GPUs of this machine and their assignment. Impure: asks the driver, by a helper."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Protocol

from servd.config.bento.declared import component_paths
from servd.config.load import Loaded, LoadError
from servd.config.validation_context import ValidationContext
from servd.core.diagnostics import Diagnostic, Severity
from servd.host.facts import usable_ids
from servd.host.gpu_query import GpuAnswer, ask_gpus, query_gpus
from servd.plan.gpu_faults import Quarantine
from servd.plan.gpu_inventory import Ids, find_gpu
from servd.plan.gpu_warnings import gpu_warnings
from servd.plan.gpus import (
    ORDER,
    VISIBLE,
    GpuError,
    GpuInventory,
    GpuRequest,
    gpu_requests,
    with_gpus,
    without_gpus,
)
from servd.plan.model import Plan
from servd.wire.gpus import Gpu, GpuSnapshot


class KnownGpus(Protocol):
    """What is known of GPUs. `peaks`: the bytes that a worker of a service was seen to take of one.
    `held`: the GPUs that workers have at a first start, by service. `quarantine`: those that have
    failed. `ask` may take seconds.
    """

    peaks: Mapping[str, int]
    held: Mapping[str, tuple[Ids, ...]]
    quarantine: Quarantine

    def ask(self) -> GpuAnswer: ...


class AskedGpus:
    """Asks the driver, and knows nothing of what was before."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.peaks: Mapping[str, int] = {}
        self.held: Mapping[str, tuple[Ids, ...]] = {}
        self.quarantine = Quarantine({})
        self._environ = environ

    def ask(self) -> GpuAnswer:
        """Implements `KnownGpus`."""
        return ask_gpus(self._environ)


def usable_gpus(
    configured: float | tuple[int | str, ...] | Literal["auto"],
    environ: Mapping[str, str],
    snapshot: GpuSnapshot | None,
) -> GpuInventory:
    """Returns `daemon.gpus`; for "auto", those of CUDA_VISIBLE_DEVICES, else all of the driver.
    `snapshot`: what is known of them.
    """
    known = _usable(snapshot.gpus if snapshot is not None else ())
    cpus = usable_ids()
    if isinstance(configured, tuple):
        ids = _ids_of(map(str, configured), known)
        return GpuInventory(ids, declared=True, known=known, cpus=cpus)
    if configured != "auto":
        return GpuInventory(_first(int(configured), known), declared=True, known=known, cpus=cpus)
    if VISIBLE in environ:
        return _of_the_operator(environ, known)
    return GpuInventory(tuple(gpu.id for gpu in known), known=known, cpus=cpus)


def _usable(gpus: Sequence[Gpu]) -> tuple[Gpu, ...]:
    """Leaves out GPUs that are cut into instances: CUDA offers the instances only."""
    parents = {gpu.parent for gpu in gpus}
    return tuple(gpu for gpu in gpus if gpu.id not in parents)


def _ids_of(names: Iterable[str], known: Sequence[Gpu]) -> tuple[str, ...]:
    found = ((find_gpu(known, name), name) for name in names)
    return tuple(dict.fromkeys(gpu.id if gpu is not None else name for gpu, name in found))


def _first(count: int, known: Sequence[Gpu]) -> tuple[str, ...]:
    """Returns the first GPUs; those that are not known, by the numbers that are left."""
    there = [gpu.id for gpu in known[:count]]
    numbers = {gpu.number for gpu in known}
    rest = (number for number in map(str, itertools.count()) if number not in numbers)
    return (*there, *itertools.islice(rest, count - len(there)))


def _of_the_operator(environ: Mapping[str, str], known: Sequence[Gpu]) -> GpuInventory:
    """Returns the GPUs of CUDA_VISIBLE_DEVICES, by the names in it. Numbers are those of the driver
    if CUDA is told so, or if all GPUs are of one kind: it counts the fastest first.
    """
    named = [each.strip() for each in environ[VISIBLE].split(",")]
    usable = [each for each in (named[: named.index("-1")] if "-1" in named else named) if each]
    in_order = environ.get(ORDER) == "PCI_BUS_ID" or len({gpu.name for gpu in known}) <= 1
    found = [find_gpu(known, name) if in_order or not name.isdigit() else None for name in usable]
    ids = [gpu.id if gpu is not None else name for gpu, name in zip(found, usable, strict=True)]
    names = tuple(dict(zip(ids, usable, strict=True)).items())
    there = tuple(gpu for gpu in found if gpu is not None)
    unique = tuple(dict.fromkeys(ids))
    return GpuInventory(unique, ordered=False, known=there, names=names, cpus=usable_ids())


def gpu_names(environ: Mapping[str, str]) -> dict[str, str]:
    """Returns the names of the GPUs of the driver, by number."""
    found = query_gpus(environ)
    return {gpu.number: gpu.name for gpu in found.gpus if gpu.number} if found is not None else {}


def equipped(
    loaded: Loaded,
    plan: Plan,
    environ: Mapping[str, str],
    before: Plan,
    known: KnownGpus | None = None,
) -> tuple[Plan, list[Diagnostic]]:
    """Returns `plan` with the GPUs of every worker, and warnings. Raises `GpuError`. On a machine
    without GPUs, requests in BentoML code are dropped with a warning, as BentoML does. Without
    `known`, the driver is asked. GPUs in quarantine are given only where the others do not suffice:
    workers wait for them.
    """
    wanted = gpu_requests(plan)
    if not wanted:
        return without_gpus(plan, []), []
    known = known or AskedGpus(environ)
    answer = known.ask()
    gpus = usable_gpus(loaded.config.daemon.gpus, environ, answer.snapshot)
    if answer.is_unknown:
        gpus = _with_held(gpus, before, answer.error)
    drops = all(r.shared and (not gpus.unknown or _ran_without(r, before)) for r in wanted)
    if gpus.ids or gpus.declared or not drops:
        plan = without_gpus(_dealt(plan, gpus, before, known), [])
        found = [
            _at(loaded, (each.service, each.key), each.message, "warning", each.hint)
            for each in gpu_warnings(plan, known.peaks)
        ]
        return plan, found
    return without_gpus(plan, wanted), [_done_without(loaded, request) for request in wanted]


def _dealt(plan: Plan, gpus: GpuInventory, before: Plan, known: KnownGpus) -> Plan:
    """Returns `plan` with GPUs. Raises `GpuError`."""
    sound = known.quarantine.without(gpus.ids, gpus.known)
    if sound != gpus.ids:
        with contextlib.suppress(GpuError):
            return with_gpus(plan, dataclasses.replace(gpus, ids=sound), before, known.peaks)
        gpus = dataclasses.replace(gpus, quarantined=frozenset(gpus.ids) - set(sound))
    return with_gpus(plan, gpus, before, known.peaks)


def _with_held(gpus: GpuInventory, before: Plan, reason: str) -> GpuInventory:
    """Returns what can be given while the driver is silent: the GPUs that workers have."""
    called = {gpu: name for service in before.services for gpu, name in service.gpu_names.items()}
    held = dict.fromkeys(gpu for service in before.services for ids in service.gpus for gpu in ids)
    if held.keys() <= set(gpus.ids):
        return dataclasses.replace(gpus, unknown=reason)
    there = tuple(
        Gpu(gpu, number=name if (name := called.get(gpu, "")).isdecimal() else "") for gpu in held
    )
    return dataclasses.replace(gpus, ids=tuple(held), known=there, unknown=reason)


def _ran_without(request: GpuRequest, before: Plan) -> bool:
    """Whether there was no driver when the service was planned."""
    service = before.by_name.get(request.service)
    return service is not None and not service.gpus and service.environment.get(VISIBLE) == ""


def _done_without(loaded: Loaded, request: GpuRequest) -> Diagnostic:
    gpus = f"{request.each:g} GPU{'' if request.each == 1 else 's'}"
    message = f"{request.service} requests {gpus} in its code, but this machine has none"
    return _at(loaded, (request.service, "gpus"), message, "warning")


def gpu_diagnostic(loaded: Loaded, error: GpuError) -> Diagnostic:
    """Returns the diagnostic at the place of the excessive request."""
    return _at(loaded, (error.service, "gpus"), str(error), "error")


def _at(
    loaded: Loaded, at: tuple[str, str], message: str, severity: Severity, hint: str = ""
) -> Diagnostic:
    assert loaded.layers is not None
    components = component_paths(loaded.parts)
    checked = ValidationContext(loaded.config, loaded.layers, component_paths=components)
    return checked.problem(("services", *at), message, hint, severity=severity, code="gpus")


def equip_at_start(
    loaded: Loaded,
    plan: Plan,
    environ: Mapping[str, str],
    known: KnownGpus | None = None,
) -> tuple[Plan, list[Diagnostic]]:
    """Returns the `equipped` plan of a first start, and warnings. Raises `LoadError`."""
    held = known.held if known is not None else {}
    before = tuple(
        dataclasses.replace(service, gpus=held.get(service.name, ())) for service in plan.services
    )
    try:
        return equipped(loaded, plan, environ, Plan(before), known)
    except GpuError as error:
        found = (*loaded.diagnostics, gpu_diagnostic(loaded, error))
        raise LoadError(dataclasses.replace(loaded, diagnostics=found)) from None
