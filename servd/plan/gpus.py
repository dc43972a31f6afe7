"""Assigns GPUs to workers. Pure. A service requests a number per worker (whole GPUs, or a share of
one) or for all its workers together (BentoML code does), or ids. Counts are spread over the GPUs;
named GPUs are exclusive. Workers keep the GPUs that they have.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from servd.config.gpu_table import gpus_each
from servd.core.quick_dataclass import dataclass
from servd.plan.model import Plan, ServicePlan

VISIBLE, ORDER = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"
_TOLERANCE = 1e-9
"""Shares are sums of decimal fractions: ten times 0.1 is one GPU."""

Ids = tuple[str, ...]


class GpuError(Exception):
    """More GPUs are requested than exist; `service` is one that requests them."""

    def __init__(self, service: str, message: str) -> None:
        self.service = service
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class GpuRequest:
    """A request: `each` per worker or, if `shared`, for all together; or the GPUs `named`."""

    service: str
    workers: int
    each: float = 0.0
    shared: bool = False
    named: Ids = ()

    @property
    def portions(self) -> int:
        """Number of times that `each` is requested."""
        return 1 if self.shared else self.workers

    def __str__(self) -> str:
        times = f"{self.portions} x " if self.portions != 1 else ""
        return f"{self.service} {times}{self.each:g}"


@dataclass(frozen=True, slots=True)
class GpuInventory:
    """GPUs of this machine. `ordered`: by PCI bus, as CUDA is told. `declared`: by the config."""

    ids: Ids = ()
    ordered: bool = True
    declared: bool = False


def gpu_requests(plan: Plan) -> list[GpuRequest]:
    """Returns the requests of the running services."""
    found: list[GpuRequest] = []
    for service in plan.services:
        wanted, part = service.definition.gpus, service.part
        if wanted == "none":
            continue
        if isinstance(wanted, tuple):
            ids = tuple(map(str, wanted))
            found.append(GpuRequest(service.name, service.workers, named=ids))
        elif wanted:
            found.append(GpuRequest(service.name, service.workers, gpus_each(wanted)))
        elif part is not None:
            found.append(GpuRequest(service.name, service.workers, part.gpus, shared=True))
    return [request for request in found if request.workers and (request.named or request.each)]


def without_gpus(plan: Plan, requests: Sequence[GpuRequest]) -> Plan:
    """Returns `plan` with every GPU hidden from the services that want none: `gpus = "none"`, or
    `gpus = 0` where others have GPUs, and from those of `requests`, which are not satisfied.
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
    return others_have and given.gpus == 0 and "gpus" in given.model_fields_set


def with_gpus(plan: Plan, gpus: GpuInventory, before: Plan) -> Plan:
    """Returns `plan` with GPUs, those of `before` if possible. Raises `GpuError`."""
    wanted = gpu_requests(plan)
    if not wanted:
        return plan
    _require_possible(wanted, gpus.ids)
    held = {s.name: s.gpus for s in before.services}
    given = _assign(wanted, gpus.ids, held, spread=True)
    if given is None:  # kept or spread shares are in the way
        given = _assign(wanted, gpus.ids, {}, spread=False)
    if given is None:
        there = f"{_available_text(gpus.ids)}, and a share cannot span two"
        raise GpuError(wanted[-1].service, f"{_total_text(wanted)}, but {there}")
    services = tuple(
        _equipped(service, given[service.name], gpus) if service.name in given else service
        for service in plan.services
    )
    return dataclasses.replace(plan, services=services)


def _equipped(service: ServicePlan, given: Sequence[Ids], gpus: GpuInventory) -> ServicePlan:
    environment = dict(service.environment)
    if gpus.ordered:
        environment.setdefault(ORDER, "PCI_BUS_ID")
    return dataclasses.replace(service, gpus=tuple(given), environment=environment)


def _require_possible(wanted: Sequence[GpuRequest], there: Ids) -> None:
    """Raises `GpuError` for requests that no assignment can satisfy."""
    named: set[str] = set()
    for request in wanted:
        if request.each > 1 and request.each != int(request.each):
            message = f"write a whole number of GPUs or a share of one, not {request.each:g}"
            raise GpuError(request.service, message)
        unknown = [each for each in request.named if each not in there]
        if unknown and not there:
            raise GpuError(request.service, f"unknown GPU {unknown[0]}: {_available_text(())}")
        if unknown:
            there_text = f"{_available_text(there)} ({', '.join(there)})"
            message = f"unknown GPU {', '.join(unknown)}: {there_text}"
            raise GpuError(request.service, message)
        named |= set(request.named)
    asked = 0.0
    free = len(there) - len(named)
    counted = [request for request in wanted if not request.named]
    for request in counted:
        asked += request.each * request.portions
        if asked > free + _TOLERANCE:
            pinned = (
                f", and {len(named)} of them {'is' if len(named) == 1 else 'are'} pinned"
                if named
                else ""
            )
            message = f"{_total_text(counted)}, but {_available_text(there)}{pinned}"
            raise GpuError(request.service, message)


def _total_text(wanted: Sequence[GpuRequest]) -> str:
    """Returns `3.5 GPUs requested (web 2 x 1 + ocr 3 x 0.5)`."""
    counted = [request for request in wanted if not request.named]
    total = sum(request.each * request.portions for request in counted)
    noun = "GPU" if total == 1 else "GPUs"
    return f"{total:g} {noun} requested ({' + '.join(map(str, counted))})"


def _available_text(there: Ids) -> str:
    return f"this machine has {len(there) or 'no'} GPU{'' if len(there) == 1 else 's'}"


def _assign(
    wanted: Sequence[GpuRequest], there: Ids, held: dict[str, tuple[Ids, ...]], *, spread: bool
) -> dict[str, list[Ids]] | None:
    """Returns the GPU ids per worker and service, or None if the requests cannot be satisfied."""
    free_shares = dict.fromkeys(there, 1.0)
    free_shares |= {each: 0.0 for request in wanted for each in request.named}
    given: dict[str, list[Ids]] = {}
    open_portions: list[tuple[GpuRequest, int]] = []
    for request in wanted:
        given[request.service] = [request.named] * request.workers
        if not request.named:
            kept = _keep_held(request, held.get(request.service, ()), free_shares)
            given[request.service] = [*kept, *([()] * (request.portions - len(kept)))]
            open_portions += [(request, slot) for slot in range(len(kept), request.portions)]
    for request, slot in sorted(open_portions, key=lambda item: -item[0].each):
        found = _take_free(request.each, free_shares, spread=spread)
        if found is None:
            return None
        given[request.service][slot] = found
    for request in wanted:
        if request.shared:
            given[request.service] *= request.workers
    return given


def _keep_held(
    request: GpuRequest, held: tuple[Ids, ...], free_shares: dict[str, float]
) -> list[Ids]:
    """Takes and returns the GPUs of the first workers, as long as they fit the request."""
    kept: list[Ids] = []
    for ids in held[: request.portions]:
        whole = request.each >= 1
        fits = len(ids) == (int(request.each) if whole else 1)
        need = 1.0 if whole else request.each
        if not fits or any(free_shares.get(each, 0.0) + _TOLERANCE < need for each in ids):
            break
        for each in ids:
            free_shares[each] -= need
        kept.append(ids)
    return kept


def _take_free(each: float, free_shares: dict[str, float], *, spread: bool) -> Ids | None:
    """Takes and returns the GPUs for one portion, or returns None."""
    need = min(each, 1.0)
    fitting = [one for one, room in free_shares.items() if room + _TOLERANCE >= need]
    if len(fitting) < each:
        return None
    if each >= 1:
        whole = tuple(fitting[: int(each)])
        free_shares.update(dict.fromkeys(whole, 0.0))
        return whole
    best = (max if spread else min)(fitting, key=lambda one: free_shares[one])
    free_shares[best] -= each
    return (best,)
