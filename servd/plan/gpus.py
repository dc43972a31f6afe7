"""Which GPUs each worker gets. Pure.

A service asks for so many per worker (whole ones, or a share of one), for so many for all of its
workers together (the code of a BentoML service does), or names them. Counts are spread over the
GPUs that there are; named ones are nobody else's. Whoever had some keeps them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from servd.plan.model import Plan, ServicePlan

VISIBLE, ORDER = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"
_ENOUGH = 1e-9
"""Shares are sums of decimal fractions: 0.1 ten times is one GPU."""

Ids = tuple[str, ...]


class GpuError(Exception):
    """More is asked for than there is; `service` is one that asks."""

    def __init__(self, service: str, message: str) -> None:
        self.service = service
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class GpuRequest:
    """What one service asks for: `each` for every worker or, when `shared`, for all together; or
    just the GPUs `named`.
    """

    service: str
    workers: int
    each: float = 0.0
    shared: bool = False
    named: Ids = ()

    @property
    def portions(self) -> int:
        """How many times `each` is asked for."""
        return 1 if self.shared else self.workers

    def __str__(self) -> str:
        times = f"{self.portions} x " if self.portions != 1 else ""
        return f"{self.service} {times}{self.each:g}"


@dataclass(frozen=True, slots=True)
class GpuInventory:
    """The GPUs of this machine. `ordered` says that their numbers are those of the PCI bus, which
    CUDA has to be told; `declared` that somebody has said how many there are.
    """

    ids: Ids = ()
    ordered: bool = True
    declared: bool = False


def gpu_requests(plan: Plan) -> list[GpuRequest]:
    """What the services that run ask for."""
    found: list[GpuRequest] = []
    for service in plan.services:
        wanted = service.definition.gpus
        if isinstance(wanted, tuple):
            if wanted:
                ids = tuple(str(each) for each in wanted)
                found.append(GpuRequest(service.name, service.workers, named=ids))
        elif wanted:
            found.append(GpuRequest(service.name, service.workers, wanted))
        elif service.part is not None and service.part.gpus:
            found.append(GpuRequest(service.name, service.workers, service.part.gpus, shared=True))
    return [request for request in found if request.workers]


def with_gpus(plan: Plan, gpus: GpuInventory, before: Plan) -> Plan:
    """`plan` with the GPUs of every worker, as they are in `before` where that is possible.

    Raises `GpuError`.
    """
    wanted = gpu_requests(plan)
    if not wanted:
        return plan
    _are_possible(wanted, gpus.ids)
    held = {s.name: s.gpus for s in before.services}
    given = _dealt(wanted, gpus.ids, held, spread=True)
    if given is None:  # what was kept, or spread, is in the way
        given = _dealt(wanted, gpus.ids, {}, spread=False)
    if given is None:
        raise GpuError(
            wanted[-1].service,
            f"{_sum(wanted)}: {_count(gpus.ids)}, and no share can be of two",
        )
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


def _are_possible(wanted: Sequence[GpuRequest], there: Ids) -> None:
    """Raises `GpuError` for what cannot be, however it is dealt out."""
    named: set[str] = set()
    for request in wanted:
        if request.each > 1 and request.each != int(request.each):
            message = f"{request.each:g}: write a whole number of GPUs, or a share of one"
            raise GpuError(request.service, message)
        unknown = [each for each in request.named if each not in there]
        if unknown:
            message = f"there is no GPU {', '.join(unknown)}: {_count(there)} ({', '.join(there)})"
            raise GpuError(
                request.service, message if there else f"no GPU {unknown[0]}: {_count(())}"
            )
        named |= set(request.named)
    asked = 0.0
    free = len(there) - len(named)
    counted = [request for request in wanted if not request.named]
    for request in counted:
        asked += request.each * request.portions
        if asked > free + _ENOUGH:
            pinned = f", {len(named)} of them named by others" if named else ""
            raise GpuError(request.service, f"{_sum(counted)}, but {_count(there)}{pinned}")


def _sum(wanted: Sequence[GpuRequest]) -> str:
    """`3.5 GPUs are asked for (web 2 x 1 + ocr 3 x 0.5)`."""
    counted = [request for request in wanted if not request.named]
    total = sum(request.each * request.portions for request in counted)
    return (
        f"{total:g} GPU{'s are' if total != 1 else ' is'} asked for"
        f" ({' + '.join(map(str, counted))})"
    )


def _count(there: Ids) -> str:
    return f"there {'is' if len(there) == 1 else 'are'} {len(there) or 'none'}"


def _dealt(
    wanted: Sequence[GpuRequest], there: Ids, held: dict[str, tuple[Ids, ...]], *, spread: bool
) -> dict[str, list[Ids]] | None:
    """The GPUs of each worker of each service; None where it does not come out."""
    left = dict.fromkeys(there, 1.0)
    given: dict[str, list[Ids]] = {}
    for request in wanted:
        for each in request.named:
            left[each] = 0.0
    open_portions: list[tuple[GpuRequest, int]] = []
    for request in wanted:
        given[request.service] = [request.named] * request.workers
        if not request.named:
            kept = _kept(request, held.get(request.service, ()), left)
            given[request.service] = [*kept, *([()] * (request.portions - len(kept)))]
            open_portions += [(request, slot) for slot in range(len(kept), request.portions)]
    for request, slot in sorted(open_portions, key=lambda item: -item[0].each):
        found = _taken(request.each, left, spread=spread)
        if found is None:
            return None
        given[request.service][slot] = found
    for request in wanted:
        if request.shared:
            given[request.service] *= request.workers
    return given


def _kept(request: GpuRequest, held: tuple[Ids, ...], left: dict[str, float]) -> list[Ids]:
    """What the first workers have already, as far as that is what they shall have."""
    kept: list[Ids] = []
    for ids in held[: request.portions]:
        whole = request.each >= 1
        fits = len(ids) == (int(request.each) if whole else 1)
        need = 1.0 if whole else request.each
        if not fits or any(left.get(each, 0.0) + _ENOUGH < need for each in ids):
            break
        for each in ids:
            left[each] -= need
        kept.append(ids)
    return kept


def _taken(each: float, left: dict[str, float], *, spread: bool) -> Ids | None:
    """GPUs for one portion, taken out of what is left."""
    if each >= 1:
        whole = list(_with_room(1.0, left))[: int(each)]
        if len(whole) < each:
            return None
        for one in whole:
            left[one] = 0.0
        return tuple(whole)
    candidates = list(_with_room(each, left))
    if not candidates:
        return None
    best = (max if spread else min)(candidates, key=lambda one: left[one])
    left[best] -= each
    return (best,)


def _with_room(each: float, left: dict[str, float]) -> Iterator[str]:
    return (one for one, room in left.items() if room + _ENOUGH >= each)
