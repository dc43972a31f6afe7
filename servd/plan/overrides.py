"""What was set by hand beside the file: numbers of workers, and services that were stopped. Pure.

It lasts until the file changes `workers` of the service, or the daemon is restarted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from servd.config.model import Config
from servd.core import graph
from servd.core.errors import ServdError
from servd.plan.model import Plan, ServicePlan


@dataclass(frozen=True, slots=True)
class Override:
    """One service by hand: so many `workers` (None: as many as the file says), or none at all."""

    workers: int | None = None
    stopped: bool = False

    def workers_of(self, service: ServicePlan) -> int:
        """Workers that there shall be, where `service` is as the file says."""
        if self.stopped:
            return 0
        return service.workers if self.workers is None else self.workers


Overrides = Mapping[str, Override]


class RefusedError(ServdError):
    """What was asked for would not make sense now. `hint` says what would."""

    def __init__(self, message: str, hint: str = "") -> None:
        self.hint = hint
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class ScaleService:
    """So many workers; 0 is a stop."""

    service: str
    workers: int
    cascade: bool = False


@dataclass(frozen=True, slots=True)
class StopService:
    """No workers; with `cascade`, none of whatever needs the service either."""

    service: str
    cascade: bool = False


@dataclass(frozen=True, slots=True)
class StartService:
    """The opposite of `StopService`, with everything that the service needs."""

    service: str


ManualAction = ScaleService | StopService | StartService
"""Something that a person asks for by hand."""


def acted(overrides: Overrides, act: ManualAction, file: Plan) -> dict[str, Override]:
    """The overrides once `act` is done, beside a `file` that stands for itself.

    Raises `RefusedError`.
    """
    if act.service not in file.by_name:
        raise RefusedError(f'there is no service "{act.service}" any more')
    if isinstance(act, StartService):
        return _started(overrides, act.service, file)
    if isinstance(act, ScaleService) and act.workers:
        return _scaled(overrides, act, file)
    return _stopped(overrides, act, file)


def with_overrides(file: Plan, overrides: Overrides) -> Plan:
    """The plan of what shall run: `file` as far as nothing was set by hand."""
    services = tuple(
        dataclasses.replace(service, workers=override.workers_of(service))
        if (override := overrides.get(service.name)) is not None
        else service
        for service in file.services
    )
    return dataclasses.replace(file, services=services)


def surviving(overrides: Overrides, before: Config, after: Config) -> dict[str, Override]:
    """Those that last when the file says `after` where it said `before`."""
    return {
        name: override
        for name, override in overrides.items()
        if name in after.services and after.services[name].workers == before.services[name].workers
    }


def effective_overrides(overrides: Overrides, file: Plan) -> dict[str, Override]:
    """Those that make a difference: what the file says anyway need not be said by hand."""
    return {
        service.name: overrides[service.name]
        for service in file.services
        if service.name in overrides
        and overrides[service.name].workers_of(service) != service.workers
    }


def needed(name: str, plan: Plan) -> list[str]:
    """A service, and all that it needs, directly or not."""
    return graph.reached(plan.graph, name)


def _scaled(overrides: Overrides, act: ScaleService, file: Plan) -> dict[str, Override]:
    service = file.service(act.service)
    if service.is_task:
        raise RefusedError(f"{service.name} is a task: it runs once, and is not scaled")
    if service.binds_itself and act.workers > 1:
        raise RefusedError(
            f"{service.name} binds its own address: it has one worker",
            "let servd bind ({fd} or LISTEN_FDS) to have more",
        )
    return _started({**overrides, service.name: Override(act.workers)}, service.name, file)


def _stopped(
    overrides: Overrides, act: ScaleService | StopService, file: Plan
) -> dict[str, Override]:
    running = {s.name for s in with_overrides(file, overrides).services if s.workers}
    needing = _dependents(act.service, file, running)
    if needing and not act.cascade:
        need, them = ("needs", "it") if len(needing) == 1 else ("need", "them")
        raise RefusedError(
            f"{', '.join(needing)} {need} {act.service}", f"stop {them} too with --cascade"
        )
    found = dict(overrides)
    for name in (act.service, *needing):
        found[name] = Override(found[name].workers if name in found else None, stopped=True)
    return found


def _dependents(name: str, file: Plan, running: Collection[str]) -> list[str]:
    """Services that run and need `name`, directly or not; tasks are over when they have run."""
    found = set(graph.reached(graph.dependents(file.graph), name)[1:]) & set(running)
    return [s.name for s in file.services if s.name in found and not s.is_task]


def _started(overrides: Overrides, name: str, file: Plan) -> dict[str, Override]:
    """Nothing of what a service needs is stopped by hand any more."""
    found = dict(overrides)
    services = file.by_name
    for each in needed(name, file):
        found[each] = Override(found[each].workers if each in found else None)
        if found[each].workers_of(services[each]):
            continue
        whose = name if each == name else f"{name} needs {each}, which"
        raise RefusedError(
            f"{whose} has workers = 0 in the file", f"give it some: servd scale {each}=1"
        )
    return found
