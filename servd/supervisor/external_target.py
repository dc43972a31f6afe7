"""A service that runs elsewhere."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from servd.core.client_tls import client_context
from servd.plan.model import ExternalPlan, HealthPlan, ServicePlan
from servd.supervisor.exits import FailedStartError
from servd.supervisor.health.probe import why_unreachable
from servd.supervisor.health.readiness import was_held_up
from servd.supervisor.no_workers import NoWorkers

if TYPE_CHECKING:
    from collections.abc import Iterable
    from ssl import SSLContext

    from servd.supervisor.worker_group import GroupOwner

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 2.0
"""Pause between two probes of a service that does not answer, unless `health.interval` is less."""


class ExternalTarget(NoWorkers):
    """Stands for a `WorkerGroup`: counts as one worker, which is ready while its address answers
    the probes of its plan. `unwell` is why it does not answer.
    """

    has_begun = accepts = has_started = True

    def __init__(self, plan: ServicePlan, owner: GroupOwner) -> None:
        super().__init__(plan, owner.record)
        self.unwell = ""
        self.has_ended = False
        self._owner = owner
        self._answers = asyncio.Event()
        self._probing: asyncio.Task[None] | None = None
        self._context: SSLContext | None = None

    def start(self) -> None:
        """Begins to probe."""
        self._probing = asyncio.get_running_loop().create_task(self._probe())

    @property
    def ready_count(self) -> int:  # type: ignore[override]  # a constant of NoWorkers
        """1 while it answers."""
        return int(self._answers.is_set())

    @property
    def is_ready(self) -> bool:
        """Whether it answers."""
        return self._answers.is_set()

    @property
    def serves(self) -> bool:  # type: ignore[override]
        """Whether it answers."""
        return self._answers.is_set()

    async def until_ready(self, slots: Iterable[int] | None = None) -> None:
        """Waits until it answers. Raises `FailedStartError` after `timeouts.startup`."""
        seconds = self.plan.startup
        try:
            async with asyncio.timeout(seconds):
                await self._answers.wait()
        except TimeoutError:
            limit = f"did not answer within {seconds:g} s (timeouts.startup)"
            raise FailedStartError(f"{self._target.shown} {limit}: {self.unwell}") from None

    async def adjust(self, plan: ServicePlan) -> None:
        """Continues to probe by `plan`."""
        self.plan, self._context = plan, None
        if self._probing is not None and not self.has_ended:
            self._probing.cancel()
            self.start()

    async def stop_accepting(self, *_: object) -> None:
        """Ends the probes. Who has its address still reaches it."""
        self.has_ended = True
        self._answers.clear()
        if self._probing is not None:
            self._probing.cancel()

    @property
    def _target(self) -> ExternalPlan:
        assert self.plan.external is not None
        return self.plan.external

    async def _probe(self) -> None:
        health, loop = self.plan.health, asyncio.get_running_loop()
        assert health is not None
        failures, pause = 0, _FIRST_PAUSE_SECONDS
        while True:
            began = loop.time()
            try:
                reason = await self._why_unwell(health)
            except OSError:  # the daemon lacks resources: that says nothing about the service
                await asyncio.sleep(health.interval)
                continue
            if reason and was_held_up(loop.time() - began - health.timeout, health.timeout):
                continue  # nor does the daemon's own delay
            failures = failures + 1 if reason else 0
            if not reason or not self.is_ready or failures >= health.failures:
                self._learn(reason)
            if self.is_ready:
                pause = _FIRST_PAUSE_SECONDS
                await asyncio.sleep(health.interval)
            else:
                await asyncio.sleep(min(pause, health.interval))
                pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)

    async def _why_unwell(self, health: HealthPlan) -> str:
        """Returns why it does not answer. Raises OSError when the daemon lacks resources."""
        target = self._target
        if self._context is None and target.url.startswith("https:"):
            files = (target.ca_certs, target.certfile, target.keyfile)
            try:  # once, as its callers do: new content is another plan
                self._context = await asyncio.to_thread(client_context, *files)
            except (OSError, ValueError) as error:
                return f"the certificates of tls cannot be used: {error}"
        return await why_unreachable(health, self._context)

    def _learn(self, reason: str) -> None:
        if reason == self.unwell and self.is_ready == (not reason):
            return
        self.unwell = reason
        if reason:
            self._answers.clear()
        else:
            self._answers.set()
        self._owner.refresh()
