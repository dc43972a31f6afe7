"""Manual overrides of workers, until the config changes the key or the daemon restarts. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

from servd.core import graph
from servd.core.errors import ServdError
from servd.core.quick_dataclass import dataclass
from servd.plan.autoscale import scaling_of
from servd.plan.model import Plan, ServicePlan


@dataclass(frozen=True, slots=True)
class Override:
    """The override of one service: `workers` (None: as in the file), or `stopped`."""

    workers: int | None = None
    stopped: bool = False

    def workers_of(self, service: ServicePlan) -> int:
        """Returns the number of workers for `service` of the declared plan."""
        if self.stopped:
            return 0
        return service.workers if self.workers is None else self.workers


Overrides = Mapping[str, Override]


class RefusedError(ServdError):
    """The action is not possible now. `hint` names one that is."""

    def __init__(self, message: str, hint: str = "") -> None:
        self.hint = hint
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class ScaleService:
    """Sets the number of workers; 0 stops the service, None leaves it to the file again."""

    service: str
    workers: int | None
    cascade: bool = False


@dataclass(frozen=True, slots=True)
class StopService:
    """Stops a service; with `cascade`, also everything that depends on it."""

    service: str
    cascade: bool = False


@dataclass(frozen=True, slots=True)
class StartService:
    """Starts a service and everything that it depends on."""

    service: str


@dataclass(frozen=True, slots=True)
class FollowLoad:
    """Gives a service the number of workers that its load calls for; fewer where GPUs lack."""

    service: str
    workers: int


ManualAction = ScaleService | StopService | StartService
"""An action requested by a person."""


def acted(overrides: Overrides, act: ManualAction, declared: Plan) -> dict[str, Override]:
    """Returns the overrides after `act` on the `declared` plan. Raises `RefusedError`."""
    if act.service not in declared.by_name:
        raise RefusedError(f'service "{act.service}" no longer exists')
    if isinstance(act, StartService):
        return _started(overrides, act.service, declared)
    if isinstance(act, ScaleService) and act.workers != 0:
        return _scaled(overrides, act, declared)
    return _stopped(overrides, act, declared)


def with_overrides(declared: Plan, overrides: Overrides) -> Plan:
    """Returns the `declared` plan with manual overrides applied."""
    services = tuple(
        dataclasses.replace(s, workers=overrides.get(s.name, Override()).workers_of(s))
        for s in declared.services
    )
    return dataclasses.replace(declared, services=services)


def surviving(overrides: Overrides, before: Plan, after: Plan) -> dict[str, Override]:
    """Returns the overrides that remain when the declared plan changes from `before` to `after`:
    `workers` of the service has the same spelling or the same number.
    """
    old, new = before.by_name, after.by_name
    return {
        name: override
        for name, override in overrides.items()
        if name in old and name in new and _workers_agree(old[name], new[name])
    }


def _workers_agree(old: ServicePlan, new: ServicePlan) -> bool:
    if old.definition.autoscale != new.definition.autoscale:
        return False
    return old.workers == new.workers or old.definition.workers == new.definition.workers


@dataclass(frozen=True, slots=True)
class EndedOverride:
    """A manual number of workers that no longer applies: the config says `file` (None: it no longer
    has the service).
    """

    service: str
    workers: int
    file: int | None


def ended(
    before: Overrides, after: Overrides, running: Plan, declared: Plan
) -> tuple[EndedOverride, ...]:
    """Returns which of the overrides `before` are not among those `after`."""
    was, says = running.by_name, declared.by_name
    return tuple(
        EndedOverride(name, was[name].workers, says[name].workers if name in says else None)
        for name in before
        if name not in after and name in was
    )


def effective_overrides(overrides: Overrides, declared: Plan) -> dict[str, Override]:
    """Returns the overrides that differ from the `declared` plan, and those that keep a number
    from following the load.
    """
    return {
        s.name: overrides[s.name]
        for s in declared.services
        if s.name in overrides
        and (
            overrides[s.name].workers_of(s) != s.workers
            or (overrides[s.name].workers is not None and scaling_of(s) is not None)
        )
    }


def needed(name: str, plan: Plan) -> list[str]:
    """Returns a service and everything that it depends on, directly or not."""
    return graph.reached(plan.graph, name)


def _scaled(overrides: Overrides, act: ScaleService, declared: Plan) -> dict[str, Override]:
    service = declared.service(act.service)
    if service.external is not None:
        raise RefusedError(f"{service.name} runs elsewhere, so its workers cannot be set here")
    if service.is_task:
        raise RefusedError(
            f"{service.name} is a task, which runs in one process and cannot be scaled"
        )
    if service.binds_itself and (act.workers or 0) > 1:
        hint = "let servd bind the address ({fd} or LISTEN_FDS) for more workers"
        raise RefusedError(
            f"{service.name} binds its own address and can have only one worker", hint
        )
    return _started({**overrides, service.name: Override(act.workers)}, service.name, declared)


def _stopped(
    overrides: Overrides, act: ScaleService | StopService, declared: Plan
) -> dict[str, Override]:
    running = {s.name for s in with_overrides(declared, overrides).services if s.workers}
    needing = _dependents(act.service, declared, running)
    if needing and not act.cascade:
        verb, them = ("depends", "it") if len(needing) == 1 else ("depend", "them")
        message = f"{', '.join(needing)} {verb} on {act.service}"
        raise RefusedError(message, f"use --cascade to stop {them} too")
    found = dict(overrides)
    for name in (act.service, *needing):
        found[name] = Override(found[name].workers if name in found else None, stopped=True)
    return found


def _dependents(name: str, declared: Plan, running: Collection[str]) -> list[str]:
    """Returns the running services that need `name`, directly or not, without tasks."""
    found = set(graph.reached(graph.dependents(declared.graph), name)[1:]) & set(running)
    return [s.name for s in declared.services if s.name in found and not s.is_task]


def _started(overrides: Overrides, name: str, declared: Plan) -> dict[str, Override]:
    """Removes the manual stop of a service and of everything that it depends on."""
    found = dict(overrides)
    services = declared.by_name
    for each in needed(name, declared):
        found[each] = Override(found[each].workers if each in found else None)
        if found[each].workers_of(services[each]):
            continue
        whose = name if each == name else f"{name} depends on {each}, which"
        hint = f"start a worker with `servd scale {each}=1`"
        raise RefusedError(f"{whose} has workers = 0 in the config", hint)
    return found
