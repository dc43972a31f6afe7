"""The GPUs of this machine and their assignment. Impure: asks the driver, by a helper."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from servd.config.bento.declared import component_paths
from servd.config.load import Loaded, LoadError
from servd.config.validation_context import ValidationContext
from servd.core.diagnostics import Diagnostic, Severity
from servd.host.gpu_query import query_gpus
from servd.plan.gpus import (
    VISIBLE,
    GpuError,
    GpuInventory,
    GpuRequest,
    gpu_requests,
    with_gpus,
    without_gpus,
)
from servd.plan.model import Plan


def usable_gpus(
    configured: float | tuple[int | str, ...] | Literal["auto"], environ: Mapping[str, str]
) -> GpuInventory:
    """Returns `daemon.gpus`; for "auto", those of CUDA_VISIBLE_DEVICES, else all of NVML."""
    if configured != "auto":
        ids = configured if isinstance(configured, tuple) else range(int(configured))
        return GpuInventory(tuple(map(str, ids)), declared=True)
    if VISIBLE in environ:
        named = [each.strip() for each in environ[VISIBLE].split(",")]
        usable = named[: named.index("-1")] if "-1" in named else named
        return GpuInventory(tuple(each for each in usable if each), ordered=False)
    return GpuInventory(tuple(gpu_names(environ)))


def gpu_names(environ: Mapping[str, str]) -> dict[str, str]:
    """Returns the names of the GPUs of the driver, by number."""
    found = query_gpus(environ)
    return {gpu.number: gpu.name for gpu in found.gpus if gpu.number} if found is not None else {}


def equipped(
    loaded: Loaded, plan: Plan, environ: Mapping[str, str], before: Plan
) -> tuple[Plan, list[Diagnostic]]:
    """Returns `plan` with the GPUs of every worker, and warnings. Raises `GpuError`. On a machine
    without GPUs, requests in BentoML code are dropped with a warning, as BentoML does.
    """
    wanted = gpu_requests(plan)
    if not wanted:
        return without_gpus(plan, []), []
    gpus = usable_gpus(loaded.config.daemon.gpus, environ)
    if gpus.ids or gpus.declared or not all(request.shared for request in wanted):
        return without_gpus(with_gpus(plan, gpus, before), []), []
    return without_gpus(plan, wanted), [_done_without(loaded, request) for request in wanted]


def _done_without(loaded: Loaded, request: GpuRequest) -> Diagnostic:
    gpus = f"{request.each:g} GPU{'' if request.each == 1 else 's'}"
    message = f"{request.service} requests {gpus} in its code, but this machine has none"
    return _at(loaded, request.service, message, "warning")


def gpu_diagnostic(loaded: Loaded, error: GpuError) -> Diagnostic:
    """Returns the diagnostic at the place of the excessive request."""
    return _at(loaded, error.service, str(error), "error")


def _at(loaded: Loaded, service: str, message: str, severity: Severity) -> Diagnostic:
    assert loaded.layers is not None
    components = component_paths(loaded.parts)
    checked = ValidationContext(loaded.config, loaded.layers, component_paths=components)
    path = ("services", service, "gpus")
    return checked.problem(path, message, severity=severity, code="gpus")


def equip_at_start(
    loaded: Loaded, plan: Plan, environ: Mapping[str, str]
) -> tuple[Plan, list[Diagnostic]]:
    """Returns the `equipped` plan of a first start, and warnings. Raises `LoadError`."""
    try:
        return equipped(loaded, plan, environ, Plan())
    except GpuError as error:
        found = (*loaded.diagnostics, gpu_diagnostic(loaded, error))
        raise LoadError(dataclasses.replace(loaded, diagnostics=found)) from None
