"""Lets numbers of workers follow the load."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from servd.config.worker_tables import Autoscale
from servd.core.errors import ServdError
from servd.core.events import Event
from servd.daemon.periodic import Periodic
from servd.daemon.reload.desired import DesiredState
from servd.daemon.reload.request import ReloadReport, ReloadRequest
from servd.plan.autoscale import LoadHistory, scaling_of, wanted_workers
from servd.plan.model import ServicePlan
from servd.plan.overrides import FollowLoad
from servd.supervisor.counters import CounterRegistry
from servd.wire.shm_counters import IN_FLIGHT

_SAMPLE_SECONDS = 0.5
_LONGEST_HOLD_SECONDS = 300.0
"""Pause after attempts that failed, at most."""

log = structlog.get_logger()


@dataclass(slots=True)
class _Load:
    """What is known of the load of a service that has had `workers` since `since`. Nothing is
    tried before `hold_until`.
    """

    history: LoadHistory
    workers: int
    since: float
    hold_until: float = 0.0
    hold: float = 0.0

    def failed(self, now: float) -> None:
        up_after = self.history.scale.up_after
        self.hold = min(max(2 * self.hold, up_after, 1.0), _LONGEST_HOLD_SECONDS)
        self.hold_until = now + self.hold


class Autoscaler:
    """Asks for workers as `autoscale` says. A number that was set by hand stays."""

    def __init__(
        self,
        desired: Callable[[], DesiredState],
        counters: CounterRegistry,
        ask: Callable[[ReloadRequest], asyncio.Future[ReloadReport]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.looks = Periodic(_SAMPLE_SECONDS, self.look, later=True)
        self._desired = desired
        self._counters = counters
        self._ask = ask
        self._clock = clock
        self._loads: dict[str, _Load] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}

    def in_flight(self, service: ServicePlan) -> float | None:
        """Returns the mean of the requests in flight of the last `up_after`; None if unknown."""
        load = self._loads.get(service.name)
        return round(load.history.mean, 2) if load is not None else None

    def look(self) -> None:
        """Samples every service that follows its load, and asks for other numbers of workers."""
        desired = self._desired()
        followed = {
            service.name: (service, scale)
            for service in desired.plan.services
            if (scale := scaling_of(service)) is not None
            and service.workers
            and service.name not in desired.overrides
        }
        for name in self._loads.keys() - followed.keys():
            del self._loads[name]
        for service, scale in followed.values():
            self._follow(service, scale)

    def _follow(self, service: ServicePlan, scale: Autoscale) -> None:
        name, now = service.name, self._clock()
        load = self._loads.get(name)
        if load is None or load.history.scale != scale:
            load = self._loads[name] = _Load(LoadHistory(scale), service.workers, now)
        if load.workers != service.workers:
            load.workers, load.since = service.workers, now
        load.history.add(now, self._counters.gauge(name, IN_FLIGHT))
        if name in self._asking or now < load.hold_until:
            return
        wanted = wanted_workers(load.history, service.workers, load.since)
        if wanted != service.workers:
            asking = asyncio.get_running_loop().create_task(self._scale(service, wanted))
            self._asking[name] = asking
            asking.add_done_callback(lambda _: self._asking.pop(name, None))

    async def _scale(self, service: ServicePlan, workers: int) -> None:
        name, in_flight = service.name, self.in_flight(service)
        act = FollowLoad(name, workers)
        try:
            report = await self._ask(ReloadRequest(f"load of {name}", read=False, act=act))
            error = report.error
        except ServdError as refused:
            error = str(refused)
        load = self._loads.get(name)
        if load is None:
            return
        if error is not None:  # logged with its reason
            load.failed(self._clock())
            return
        load.hold = 0.0
        found = self._desired().plan.by_name.get(name)
        if found is not None and found.workers != service.workers:
            log.info(
                Event.WORKERS_AUTOSCALED,
                service=name,
                workers=found.workers,
                before=service.workers,
                in_flight=in_flight,
            )
