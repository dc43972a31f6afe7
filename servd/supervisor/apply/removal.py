"""Removing services, and keeping them stopped."""

from __future__ import annotations

import asyncio
from asyncio import Task

from servd.plan.change import Change
from servd.supervisor.apply.step import Step
from servd.supervisor.generation import Generation
from servd.supervisor.service import ManagedService


class Remove(Step):
    """Removes a service once all its dependents have finished draining."""

    def __init__(self, change: Change, service: ManagedService) -> None:
        super().__init__(change, service)
        self.needed_by: list[Step] = []
        self.dependents: list[ManagedService] = []
        self.gone: Task[None] | None = None
        self._stopped_accepting = asyncio.Event()
        self._waits = False

    def begin(self) -> None:
        """Starts the removal. Dependents begin before what they need."""
        users = [step.leaving for step in self.needed_by if step.leaving is not None]
        users += [old for service in self.dependents for old in service.draining]
        users = [user for user in users if not user.is_over]
        removed = [s.gone for s in self.needed_by if isinstance(s, Remove) and s.gone is not None]
        self._waits = bool(users or removed)
        going = self._go(self.service.current, users, removed)
        self.gone = asyncio.get_running_loop().create_task(going)

    async def retire_old(self) -> None:
        """Returns once it accepts no more, or now if a draining dependent can still call it."""
        if not self._waits:
            await self._stopped_accepting.wait()

    @property
    def reason(self) -> str:
        """The reason for events."""
        return self.change.why

    async def wait_ended(self) -> None:
        """Returns when the whole service has ended."""
        if self.gone is not None:
            await asyncio.shield(self.gone)

    async def _go(
        self, generation: Generation | None, users: list[Generation], removed: list[Task[None]]
    ) -> None:
        """Ends `generation`, unless another one has replaced it during the wait."""
        try:
            for user in users:
                await user.wait_ended()
            if removed:
                await asyncio.wait(removed)
            if self.service.current is generation:
                await self.service.begin_stop(self.reason)
        finally:
            self._stopped_accepting.set()
        await self.service.wait_gone()


class Halt(Remove):
    """Stops a service and keeps its name and plan."""

    async def retire_old(self) -> None:
        """Stops it as a removal does."""
        self.service.plan = self.after
        await super().retire_old()

    @property
    def reason(self) -> str:
        """The reason for events."""
        return "stopped on request"
