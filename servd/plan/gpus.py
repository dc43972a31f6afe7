"""Assigns GPUs to workers. Pure. A service requests a number per worker (whole GPUs, or a share of
one) or for all its workers together (BentoML code does), or ids. Counts are spread over the GPUs;
named GPUs are exclusive; what needs memory gets GPUs that have it. Workers keep what they have.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from servd.plan.gpu_assignment import assign, assign_around
from servd.plan.gpu_checks import refusal, require_possible
from servd.plan.gpu_inventory import GpuError, GpuInventory, Ids
from servd.plan.gpu_requests import GpuRequest, gpu_requests
from servd.plan.gpu_rollout import GpuBudget, RolloutChoice
from servd.plan.model import Plan, ServicePlan

__all__ = [
    "ORDER",
    "VISIBLE",
    "GpuError",
    "GpuInventory",
    "GpuRequest",
    "gpu_requests",
    "with_gpus",
    "without_gpus",
]

VISIBLE, ORDER = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"

_NO_PEAKS: Mapping[str, int] = {}


def without_gpus(plan: Plan, requests: Sequence[GpuRequest]) -> Plan:
    """Returns `plan` with every GPU hidden from the services that want none: `gpus = "none"`, or
    `gpus = 0` where others have GPUs and `env` says nothing of them, and from those of `requests`,
    which are not satisfied.
    """
    others_have = bool(gpu_requests(plan)) and not requests
    unsatisfied = {request.service for request in requests}
    return dataclasses.replace(
        plan,
        services=tuple(
            dataclasses.replace(service, environment={**service.environment, VISIBLE: ""})
            if service.name in unsatisfied or _wants_none(service, others_have=others_have)
            else service
            for service in plan.services
        ),
    )


def _wants_none(service: ServicePlan, *, others_have: bool) -> bool:
    given = service.definition
    if given.gpus == "none":
        return True
    if VISIBLE in service.declared_env:
        return False
    return others_have and given.gpus == 0 and "gpus" in given.model_fields_set


def with_gpus(
    plan: Plan, gpus: GpuInventory, before: Plan, peaks: Mapping[str, int] = _NO_PEAKS
) -> Plan:
    """Returns `plan` with GPUs, those of `before` if possible, and with rollouts that fit on them.
    `peaks`: the bytes that a worker of a service was seen to take. Raises `GpuError`.
    """
    wanted = [
        dataclasses.replace(request, named=tuple(map(gpus.resolve, request.named)))
        for request in gpu_requests(plan)
    ]
    if not wanted:
        return plan
    require_possible(wanted, gpus)
    held = {s.name: tuple(tuple(map(gpus.resolve, ids)) for ids in s.gpus) for s in before.services}
    given = (assign_around if gpus.quarantined else assign)(wanted, gpus, held)
    if given is None:
        raise refusal(wanted, gpus)
    budget = GpuBudget(wanted, given, gpus, peaks)
    called = {s.name: s.gpus for s in before.services}
    services = tuple(
        _equipped(
            service,
            _as_called(given[service.name], called.get(service.name, ()), gpus),
            gpus,
            budget.choose(service),
        )
        if service.name in given
        else service
        for service in plan.services
    )
    return dataclasses.replace(plan, services=services)


def _as_called(given: Sequence[Ids], before: Sequence[Ids], gpus: GpuInventory) -> tuple[Ids, ...]:
    """Returns GPUs as running workers call them: nothing rolls because more is known of them."""
    kept = {tuple(map(gpus.resolve, ids)): ids for ids in before}
    return tuple(kept.get(tuple(ids), tuple(ids)) for ids in given)


def _equipped(
    service: ServicePlan, given: tuple[Ids, ...], gpus: GpuInventory, chosen: RolloutChoice
) -> ServicePlan:
    environment = dict(service.environment)
    if gpus.ordered:
        environment.setdefault(ORDER, "PCI_BUS_ID")
    identity = service.identity
    if service.definition.cpu_affinity == "gpu":
        identity = dataclasses.replace(identity, affinity=cpus_near(given, gpus))
    return dataclasses.replace(
        service,
        gpus=given,
        gpu_names={gpu: gpus.visible(gpus.resolve(gpu)) for ids in given for gpu in ids},
        environment=environment,
        identity=identity,
        rollout=chosen.rollout,
        rollout_reason=chosen.reason,
        fits_twice=chosen.fits_twice,
    )


def cpus_near(given: Sequence[Ids], gpus: GpuInventory) -> tuple[tuple[int, ...], ...]:
    """Returns the usable CPUs next to the GPUs of each worker; empty if they are not known."""
    known, usable = gpus.by_id, set(gpus.cpus)
    found = []
    for ids in given:
        cpus = {cpu for gpu in map(gpus.resolve, ids) if gpu in known for cpu in known[gpu].cpus}
        found.append(tuple(sorted(cpus & usable if usable else cpus)))
    return tuple(found) if all(found) else ()
