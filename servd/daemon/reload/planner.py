"""Plans the desired state from a configuration and manual overrides."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace

from servd.config.load import Loaded
from servd.config.validation_context import ValidationContext
from servd.core.diagnostics import Diagnostic
from servd.core.errors import ConfigError
from servd.core.quick_dataclass import dataclass
from servd.daemon.gpus.knowledge import GpuKnowledge
from servd.daemon.reload.desired import DesiredState
from servd.daemon.reload.request import ReloadRequest
from servd.host.facts import inspect_host, read_quota, read_texts, usable_cpus, usable_ids
from servd.host.gpus import equip_at_start, equipped, gpu_diagnostic
from servd.plan.autoscale import autoscaled
from servd.plan.build import build_loaded
from servd.plan.change import Change
from servd.plan.diff import diff
from servd.plan.found import too_many_workers, with_found
from servd.plan.gpus import GpuError
from servd.plan.model import Plan, ServicePlan
from servd.plan.overrides import (
    EndedOverride,
    FollowLoad,
    Override,
    RefusedError,
    acted,
    effective_overrides,
    ended,
    surviving,
    with_overrides,
)


@dataclass(frozen=True, slots=True)
class Planned:
    """What a reload would bring into force, the changes that lead there, and what ends of that
    which was set by hand. `tag` stands for all of it, and for what it starts from. `warnings`: what
    is to be said of its GPUs.
    """

    desired: DesiredState
    changes: tuple[Change, ...]
    by_hand_ends: tuple[EndedOverride, ...] = ()
    tag: str = ""
    warnings: tuple[Diagnostic, ...] = ()


class Planner:
    """Plans. Reads files and inspects the machine, which may be slow: call it in a thread."""

    def __init__(
        self,
        environ: Mapping[str, str],
        runtime_dir: str,
        now: Callable[[], str],
        gpus: GpuKnowledge,
    ) -> None:
        self.environ = environ
        self.gpus = gpus
        self.usable_cpus = usable_cpus(usable_ids(), read_quota())
        self._runtime_dir = runtime_dir
        self._now = now

    def first(
        self,
        loaded: Loaded,
        overrides: Mapping[str, Override],
        ports: Mapping[str, int],
        numbers: Mapping[str, int],
        revision: int,
    ) -> tuple[DesiredState, list[Diagnostic]]:
        """Returns the first desired state, and warnings. `overrides`, the `ports` of commands that
        bind themselves, and the `numbers` of workers that follow the load come from the previous
        daemon.

        Raises `LoadError` when more GPUs are requested than exist.
        """
        declared = autoscaled(self._declared(loaded, ports), numbers)
        overrides = effective_overrides(overrides, declared)
        plan = with_overrides(declared, overrides)
        plan, warnings = equip_at_start(loaded, plan, self.environ, self.gpus)
        return DesiredState(loaded, declared, overrides, plan, self._now(), revision), warnings

    def next(self, loaded: Loaded, desired: DesiredState, request: ReloadRequest) -> Planned:
        """Plans what `request` makes of `desired` with the configuration `loaded`. Where GPUs lack
        for what a load calls for, the largest number of workers that they allow is planned.

        Raises `ConfigError` and `RefusedError`.
        """
        with self.gpus.one_answer():  # also where several numbers of workers are tried
            return self._following(loaded, desired, request)

    def _following(self, loaded: Loaded, desired: DesiredState, request: ReloadRequest) -> Planned:
        act = request.act
        if not isinstance(act, FollowLoad) or act.service not in desired.declared.by_name:
            return self._next(loaded, desired, request)
        before = desired.declared.service(act.service).workers
        for workers in range(act.workers, before + 1, -1):
            with contextlib.suppress(RefusedError):
                fewer = replace(request, act=replace(act, workers=workers))
                return self._next(loaded, desired, fewer)
        last = replace(act, workers=min(act.workers, before + 1))
        return self._next(loaded, desired, replace(request, act=last))

    def _next(self, loaded: Loaded, desired: DesiredState, request: ReloadRequest) -> Planned:
        running = desired.plan
        declared = desired.declared
        if request.read:
            declared = self._declared(loaded, ports_of(running))
        elif request.certificates:
            declared = with_new_certificates(declared)
        declared = with_found(declared, running)
        numbers = {s.name: s.workers for s in desired.declared.services}
        if isinstance(request.act, FollowLoad):
            numbers[request.act.service] = request.act.workers
        declared = autoscaled(declared, numbers)
        overrides = surviving(desired.overrides, desired.declared, declared)
        gone = request.roll - declared.by_name.keys()
        if gone and not request.read:
            raise RefusedError(f'service "{min(gone)}" no longer exists')
        if request.act is not None and not isinstance(request.act, FollowLoad):
            overrides = acted(overrides, request.act, declared)
        overrides = effective_overrides(overrides, declared)
        plan = with_overrides(declared, overrides)
        _refuse_workers_that_cannot_bind(loaded, plan, running, request)
        plan, warnings = self._equipped(loaded, plan, request, running)
        roll = request.roll
        if request.roll_all:
            roll |= {service.name for service in plan.services if _has_new_code(service)}
        state = replace(desired, loaded=loaded, declared=declared, overrides=overrides, plan=plan)
        ends = ended(desired.overrides, overrides, running, declared) if request.act is None else ()
        return Planned(state, diff(running, plan, roll), ends, warnings=tuple(warnings))

    def _declared(self, loaded: Loaded, known_ports: Mapping[str, int]) -> Plan:
        host = inspect_host(loaded.config, self.environ, ports=True, known_ports=known_ports)
        return build_loaded(loaded, host, self._runtime_dir)

    def _equipped(
        self, loaded: Loaded, plan: Plan, request: ReloadRequest, running: Plan
    ) -> tuple[Plan, list[Diagnostic]]:
        """Assigns GPUs, or raises `RefusedError` (for a manual action) or `ConfigError`."""
        try:
            return equipped(loaded, plan, self.environ, running, self.gpus)
        except GpuError as error:
            if request.by_hand:
                raise RefusedError(str(error)) from None
            raise ConfigError([gpu_diagnostic(loaded, error)]) from None


def _refuse_workers_that_cannot_bind(
    loaded: Loaded, plan: Plan, running: Plan, request: ReloadRequest
) -> None:
    """Raises `RefusedError` (for a manual action) or `ConfigError`."""
    hint = "set workers = 1, or let servd bind (listen, with {fd} or LISTEN_FDS)"
    found = list(too_many_workers(plan, running))
    if found and request.by_hand:
        name, reason = found[0]
        raise RefusedError(f"{name} can have only one worker: {reason}", hint)
    if found:
        assert loaded.layers is not None
        checked = ValidationContext(loaded.config, loaded.layers)
        raise ConfigError(
            [checked.problem(("services", n, "workers"), reason, hint) for n, reason in found]
        )


def _has_new_code(service: ServicePlan) -> bool:
    """Whether a roll of all is about it: not a task that runs once, nor what is elsewhere."""
    return service.external is None and not (service.is_task and service.definition.run == "once")


def with_new_certificates(plan: Plan) -> Plan:
    """Returns `plan` with the present content of the rotating services' certificates and keys."""
    return replace(plan, services=tuple(map(_with_new_certificate, plan.services)))


def _with_new_certificate(service: ServicePlan) -> ServicePlan:
    tls = service.definition.tls
    if tls is None or service.tls is None or not tls.rotate:
        return service
    texts = read_texts((tls.certfile, tls.keyfile))
    certificate, key = texts.get(tls.certfile, ""), texts.get(tls.key_source, "")
    return replace(service, tls=replace(service.tls, certificate=certificate, key=key))


def ports_of(plan: Plan) -> dict[str, int]:
    """Returns the ports chosen for commands that bind themselves: they keep them."""
    return {
        service.name: address.port
        for service in plan.services
        if service.binds_itself
        for address in reversed(service.addresses)
        if address.kind == "tcp"
    }
