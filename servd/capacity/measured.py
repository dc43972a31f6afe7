"""What the workers have measured of each service, and the network that follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from typing import Any, Literal

from servd.capacity.network import ServiceNode
from servd.capacity.station import Demand, Station
from servd.core.errors import ServdError
from servd.core.quick_dataclass import dataclass
from servd.plan.model import Plan, ServicePlan
from servd.wire.shm_counters import Work

LEAST_REQUESTS = 100
"""Requests of a public service without which a mean says little."""


@dataclass(frozen=True, slots=True)
class MeasuredService:
    """One service as it runs, and what its requests needed so far. `places` and `queue` are those
    of each worker; null: no limit. `requests` to `waited_seconds` are sums: how many were served,
    how long, the squares of that, and how long they waited for a place. `cpu_seconds` is the CPU
    time of `cpu_requests` of them. All are 0 for a program of its own (`kind` "command").
    """

    name: str
    kind: Literal["app", "command", "external", "task"]
    public: bool
    workers: int
    places: int | None
    queue: int | None
    calls: list[str]
    requests: float = 0.0
    seconds: float = 0.0
    squares: float = 0.0
    waited_seconds: float = 0.0
    cpu_seconds: float = 0.0
    cpu_requests: float = 0.0

    def since(self, before: MeasuredService) -> MeasuredService:
        """Returns what was measured after `before`; all of it if another daemon counts now."""
        if self.requests < before.requests:
            return self
        sums = {name: getattr(self, name) - getattr(before, name) for name in _SUMS}
        return replace(self, **sums)

    @property
    def response_seconds(self) -> float:
        """The mean time from arrival to answer."""
        return (self.seconds + self.waited_seconds) / self.requests if self.requests else 0.0


_SUMS = ("requests", "seconds", "squares", "waited_seconds", "cpu_seconds", "cpu_requests")


@dataclass(frozen=True, slots=True)
class Measurements:
    """What the workers have measured since the daemon started. `cpus` is the number of CPUs that it
    may use; services that others call come first.
    """

    cpus: int
    services: list[MeasuredService]

    def since(self, before: Measurements) -> Measurements:
        """Returns what was measured after `before`."""
        earlier = {service.name: service for service in before.services}
        return replace(
            self,
            services=[
                service.since(earlier[service.name]) if service.name in earlier else service
                for service in self.services
            ],
        )


def measurements(plan: Plan, cpus: int, work: Mapping[str, Work]) -> Measurements:
    """Returns a plan with what was measured of its services."""
    return Measurements(cpus, [_measured(s, work.get(s.name, Work())) for s in plan.services])


def measurements_of(answer: Mapping[str, Any]) -> Measurements:
    """Returns the answer of `GET /v1/measurements` as a value."""
    return Measurements(answer["cpus"], [MeasuredService(**each) for each in answer["services"]])


def _measured(service: ServicePlan, work: Work) -> MeasuredService:
    places: int | None = service.limits.concurrency or None
    queue: int | None = service.limits.queue
    if places is None and service.definition.interface == "wsgi":
        places, queue = service.definition.threads, None
    return MeasuredService(
        service.name,
        "task" if service.is_task else service.kind,
        service.external is None and any(a.kind != "internal" for a in service.addresses),
        service.workers,
        places,
        queue if places is not None else None,
        [dependency.service for dependency in service.depends_on],
        *work,
    )


class UnmeasuredError(ServdError):
    """Nothing is known of the service times of some services."""


@dataclass(frozen=True, slots=True)
class Given:
    """What a user says instead of a measurement: demands by service, and calls for each request by
    caller and dependency.
    """

    demands: Mapping[str, Demand] = field(default_factory=dict)
    calls: Mapping[tuple[str, str], float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Network:
    """Services on the way of requests, dependencies first, and what a reader should know of how
    they were estimated.
    """

    nodes: list[ServiceNode]
    notes: list[str]


def network(measured: Measurements, public: Sequence[str], given: Given) -> Network:
    """Returns the services that requests to `public` reach. Raises `UnmeasuredError`."""
    known = {service.name: service for service in measured.services}
    notes: list[str] = []
    reached = _reached(known, public, given, notes)
    missing = [
        service
        for service in reached
        if service.name not in given.demands and _is_unknown(service, public)
    ]
    if missing:
        raise UnmeasuredError(_missing_text(missing))
    callers = {
        service.name: [each for each in reached if service.name in each.calls]
        for service in reached
    }
    nodes: list[ServiceNode] = []
    for service in reached:
        calls = {
            name: _calls(service, known[name], callers[name], given, notes)
            for name in service.calls
            if name in callers
        }
        demand = given.demands.get(service.name) or _demand(service, calls, known)
        station = Station(service.workers, measured.cpus, service.places, service.queue)
        nodes.append(ServiceNode(service.name, station, demand, calls))
    return Network(nodes, list(dict.fromkeys(notes)))


def _reached(
    known: Mapping[str, MeasuredService], public: Sequence[str], given: Given, notes: list[str]
) -> list[MeasuredService]:
    """Returns the services on the way of requests, in order."""
    names, waiting = set[str](), list(public)
    while waiting:
        service = known[waiting.pop()]
        if service.name in names or service.kind in _OUTSIDE:
            continue
        if service.kind == "command" and service.name not in given.demands:
            notes.append(
                f"{service.name} is left out: servd does not see the requests of a command"
                f" (--service-time {service.name}=TIME includes it)"
            )
            continue
        names.add(service.name)
        waiting += service.calls
    return [service for service in known.values() if service.name in names]


_OUTSIDE = ("task", "external")
"""Kinds that take no part: a caller's own time has that of services elsewhere."""


def _is_unknown(service: MeasuredService, public: Sequence[str]) -> bool:
    """Returns whether too little is known. A dependency may have had no calls; CPU time is unknown
    if requests came one by one.
    """
    if service.name in public and service.requests < LEAST_REQUESTS:
        return True
    return bool(service.requests) and not service.cpu_requests


def _missing_text(missing: Sequence[MeasuredService]) -> str:
    names = ", ".join(f"{s.name} ({s.requests:.0f} requests)" for s in missing)
    return (
        f"not measured enough: {names}. Send it load first, at least {LEAST_REQUESTS} requests at"
        " several a second, or give --service-time"
        f" {missing[0].name}=TIME"
    )


def _calls(
    caller: MeasuredService,
    called: MeasuredService,
    callers: Sequence[MeasuredService],
    given: Given,
    notes: list[str],
) -> float:
    """Returns how often a request calls a dependency: as often as counted, on the average of its
    callers; once where nothing was counted.
    """
    told = given.calls.get((caller.name, called.name))
    if told is not None:
        return told
    requests = sum(each.requests for each in callers)
    if called.name in given.demands or not requests:
        notes.append(
            f"{caller.name} is taken to call {called.name} once for each request"
            f" (--calls {caller.name}:{called.name}=N says otherwise)"
        )
        return 1.0
    if not called.requests:
        notes.append(f"no call of {called.name} was seen")
    elif called.public:
        notes.append(
            f"{called.name} is public too: all its requests are taken for calls"
            f" (--calls {caller.name}:{called.name}=N says otherwise)"
        )
    elif len(callers) > 1:
        names = ", ".join(each.name for each in callers)
        notes.append(f"{names} are taken to call {called.name} equally often")
    if 0 < called.requests < LEAST_REQUESTS:
        notes.append(f"{called.name} had only {called.requests:.0f} requests: a rough figure")
    return called.requests / requests


def _demand(
    service: MeasuredService, calls: Mapping[str, float], known: Mapping[str, MeasuredService]
) -> Demand:
    """Returns what a request needs, without what it calls: the time in which it had its place, and
    not the time before.
    """
    if not service.requests:
        return Demand(0.0, 0.0, 0.0)
    mean = service.seconds / service.requests
    cpu = service.cpu_seconds / service.cpu_requests if service.cpu_requests else 0.0
    called = sum(count * known[name].response_seconds for name, count in calls.items())
    square = service.squares / service.requests
    variability = max(0.0, square / mean**2 - 1) if mean else 0.0
    return Demand(max(0.0, mean - cpu - called), cpu, variability)
