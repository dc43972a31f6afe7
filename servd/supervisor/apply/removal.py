"""How services end: those that go, and those that are kept stopped."""

from __future__ import annotations

import asyncio

from servd.plan.change import Change
from servd.supervisor.apply.step import Step
from servd.supervisor.generation import Generation
from servd.supervisor.service import ManagedService


class Remove(Step):
    """The service goes, once nobody who needed it is answering any more."""

    def __init__(self, change: Change, service: ManagedService) -> None:
        super().__init__(change, service)
        self.needed_by: list[Step] = []
        self.dependents: list[ManagedService] = []
        self.gone: asyncio.Task[None] | None = None
        self._stopped_accepting = asyncio.Event()
        self._waits = False

    def begin(self) -> None:
        """Starts the end. Removals begin one after the other, dependents before what they need."""
        users = [step.leaving for step in self.needed_by if step.leaving is not None]
        users += [old for service in self.dependents for old in service.draining]
        users = [user for user in users if not user.is_over]
        removed = [s.gone for s in self.needed_by if isinstance(s, Remove) and s.gone is not None]
        self._waits = bool(users or removed)
        going = self._go(self.service.current, users, removed)
        self.gone = asyncio.get_running_loop().create_task(going)

    async def retire_old(self) -> None:
        """Returns once it accepts no more, or at once where something that drains may call it."""
        if not self._waits:
            await self._stopped_accepting.wait()

    @property
    def reason(self) -> str:
        """The reason of it, for people."""
        return self.change.why

    async def wait_ended(self) -> None:
        """Returns when nothing of the service is left."""
        if self.gone is not None:
            await asyncio.shield(self.gone)

    async def _go(
        self,
        generation: Generation | None,
        users: list[Generation],
        removed: list[asyncio.Task[None]],
    ) -> None:
        """Ends `generation`, and not one that has taken its place while we waited."""
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
    """The service is kept stopped: all of it goes, but for its name."""

    async def retire_old(self) -> None:
        """As for a removal; its definition stays."""
        self.service.plan = self.after
        await super().retire_old()

    @property
    def reason(self) -> str:
        """The reason of it, for people."""
        return "kept stopped"
