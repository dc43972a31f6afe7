"""How each kind of change is made: prepared, committed in three moves, or undone."""

from __future__ import annotations

import contextlib

from servd.core.errors import StartError
from servd.plan.change import Change
from servd.plan.model import ServicePlan
from servd.supervisor.apply.removal import Halt, Remove
from servd.supervisor.apply.step import Step
from servd.supervisor.exits import FailedStartError
from servd.supervisor.generation import Generation
from servd.supervisor.service import ManagedService
from servd.supervisor.sockets.pool import Bound


class Replace(Step):
    """`add`, `roll`, `switch`, `rebind`: a new generation, all at once beside the old."""

    generation: Generation | None = None
    handover = False

    async def prepare(self) -> None:
        """The new generation is ready; it accepts only where nobody serves yet."""
        generation = self._next()
        self.handover = self._must_hand_over(generation)
        at_once = self._serves_nobody and not self.handover
        await generation.begin(accept=at_once or generation.plan.app is None, trial=True)
        self.service.refresh()
        await generation.until_ready()

    @property
    def _serves_nobody(self) -> bool:
        """Whether a client would not be answered now."""
        return not self.service.serves

    def _next(self) -> Generation:
        """The new generation, with its sockets."""
        verify_tls(self.after)
        service = self.service
        generation = self.generation = service.upcoming = service.new_generation(self.after)
        generation.bind()
        return generation

    def _must_hand_over(self, new: Generation) -> bool:
        """Whether the old (or another service) must be off its sockets before the new accepts."""
        if self.change.kind == "switch":
            return True
        old = self.service.current
        own = public_sockets(old) if old is not None else {}
        return any(item.users > 1 + (key in own) for key, item in public_sockets(new).items())

    async def accept(self) -> None:
        """The last moment at which the new generation may turn out not to stand."""
        assert self.generation is not None
        self.generation.check()
        self.generation.settle()
        if not self.handover:
            await self.generation.accept()

    async def retire(self) -> None:
        """The new generation takes the place of the old."""
        assert self.generation is not None
        self.leaving = self.service.promote(self.generation)
        if not self.handover:
            self.generation.prove()
        if self.leaving is not None:
            await self.service.retire(self.leaving)
        self.service.refresh()

    async def take_over(self) -> None:
        """A worker that died meanwhile is replaced by one that accepts."""
        assert self.generation is not None
        if self.handover:
            with contextlib.suppress(FailedStartError):
                await self.generation.accept()
            self.generation.accepts = True
            self.generation.prove()

    async def undo(self) -> None:
        """The new generation goes."""
        self.service.upcoming = None
        if self.generation is not None:
            await self.generation.discard()
        if self.service.current is not None:
            self.service.current.settle()
        self.service.refresh()


class Batches(Replace):
    """`roll` with few at a time: new workers accept as old ones go."""

    disruptive = True

    def __init__(self, change: Change, service: ManagedService) -> None:
        super().__init__(change, service)
        self._swapped: list[list[int]] = []

    async def prepare(self) -> None:
        """A batch of new workers ready, then a batch of old ones drained, until all are new."""
        old = self.service.current
        assert old is not None
        generation = self._next()
        await generation.begin(trial=True, slots=0)
        self.service.refresh()
        assert generation.watcher is not None
        for batch in _batches(self.after.workers, self.change.batch):
            generation.watcher.numprocesses = batch[-1] + 1
            generation.watcher.manage_processes()
            await generation.until_ready(batch)
            self._swapped.append(batch)
            await old.withhold(batch)

    async def undo(self) -> None:
        """Old workers come back as the new ones go."""
        new, old = self.generation, self.service.current
        try:
            for batch in reversed(self._swapped):
                if new is None or old is None or self.service.engine.stopping.is_set():
                    break
                with contextlib.suppress(FailedStartError):  # then it is tried again, as ever
                    await old.put_back(batch)
                await new.withhold(batch)
        finally:
            await super().undo()


class Interrupt(Replace):
    """A command that binds its own address: the old ends, then the new starts."""

    disruptive = True
    old: Generation | None = None

    async def prepare(self) -> None:
        """The gap is as long as the old takes to end and the new to be ready. Where servd binds,
        the address is there all the while, and connections wait.
        """
        self.old = self.service.current
        stays = self.old is not None and self.old.plan.app is not None
        generation = self._next() if stays and self.after.app is not None else None
        if self.old is not None:
            await self.old.retire()
            if self.old.plan.app is None or self.old.plan.stands_alone:  # others drain meanwhile
                await self.old.ended()
        for leaving in self.service.draining:  # what was stopped before has to leave its address
            if leaving.plan.app is None or leaving.plan.stands_alone:
                await leaving.ended()
        generation = generation or self._next()
        await generation.begin(trial=True)
        self.service.refresh()
        await generation.until_ready()

    async def retire(self) -> None:
        """The old has left already."""
        assert self.generation is not None
        self.leaving = self.service.promote(self.generation)
        if self.leaving is not None:
            self.service.draining.append(self.leaving)
        self.generation.prove()
        self.service.refresh()

    async def undo(self) -> None:
        """The old starts again."""
        await super().undo()
        if self.old is not None:
            await _resume(self.old, self.service)


class Task(Replace):
    """A task: runs to its end before its dependents go on."""

    disruptive = True
    cut_short: Generation | None = None

    async def prepare(self) -> None:
        """A run that is still going on gives way."""
        old = self.service.current
        if old is not None and not old.over:
            if old.processes:
                self.cut_short = old
            await old.retire()
            await old.ended()
        generation = self._next()
        await generation.begin()
        await generation.until_ready()

    async def retire(self) -> None:
        """The run is over, and so was the one before."""
        assert self.generation is not None
        self.service.promote(self.generation)
        self.generation.prove()
        self.service.refresh()

    async def undo(self) -> None:
        """What was going on before begins again; what the task did stays done."""
        await super().undo()
        if self.cut_short is not None:
            await _resume(self.cut_short, self.service)


class Adjust(Step):
    """`live` and `scale`: the same workers go on, more or fewer of them."""

    before: ServicePlan | None = None
    wanted = 0

    async def prepare(self) -> None:
        """Further workers are ready."""
        current = self.service.current
        if current is None:
            return
        verify_tls(self.after)
        self.before, self.wanted = current.plan, current.wanted
        more = not self.after.is_task and self.after.workers > self.wanted
        if more and current.watcher is not None:
            await current.adjust(self.after)
            current.resize(self.after.workers)
            await current.until_ready(range(self.wanted, self.after.workers))
        elif not self.after.is_task and self.after.workers < self.wanted:
            await current.fill(self.after.workers)

    async def accept(self) -> None:
        """The running workers take the new values over."""
        if self.before is not None and self.service.current is not None:
            await self.service.current.adjust(self.after)

    async def retire(self) -> None:
        """Workers that are too many drain."""
        self.service.plan = self.after
        current = self.service.current
        if current is None or current.watcher is None:
            return
        current.prove()
        if not self.after.is_task and self.after.workers < current.wanted:
            current.resize(self.after.workers)
            await current.end_surplus()
        self.service.refresh()

    async def undo(self) -> None:
        """The workers have what they had, and are as many as they were."""
        current = self.service.current
        if self.before is None or current is None:
            return
        with contextlib.suppress(FailedStartError, OSError):
            await current.adjust(self.before)
        if current.watcher is None:
            return
        if current.wanted > self.wanted:
            current.resize(self.wanted)
            await current.end_surplus()
        current.prove()
        self.service.refresh()


class Defer(Step):
    """A service that waits for one which is not ready and does not change goes on waiting, for
    what it shall be.
    """

    generation: Generation | None = None

    async def prepare(self) -> None:
        """Its addresses are taken, so that clients wait instead of being refused."""
        self.generation = self.service.new_generation(self.after)
        self.generation.bind()

    async def retire(self) -> None:
        """The supervisor starts it once it can be."""
        assert self.generation is not None
        old = self.service.promote(self.generation)
        if old is not None:
            await self.service.retire(old)

    async def until_possible(self) -> None:
        """Returns when nothing but what it needs is in its way."""

    async def undo(self) -> None:
        """The addresses are given back."""
        if self.generation is not None:
            self.generation.release()


def step_for(change: Change, service: ManagedService) -> Step:
    """The step that makes `change`."""
    if change.kind == "remove":
        return Remove(change, service)
    if change.halts:
        return Halt(change, service)
    if change.kind in ("live", "scale") and not change.starts:
        return Adjust(change, service)
    if change.plan.is_task:
        return Task(change, service)
    if change.kind == "interrupt" or (change.starts and change.plan.stands_alone):
        return Interrupt(change, service)
    if change.starts:
        return Replace(change, service)
    current = service.current
    if change.batch < change.plan.workers and current is not None and current.serves:
        return Batches(change, service)
    return Replace(change, service)


def verify_tls(plan: ServicePlan) -> None:
    """Raises `StartError` when the certificate and the key of `plan` cannot be used together."""
    if plan.tls is None:
        return
    from servd.http.tls import tls_context

    try:
        tls_context(plan.tls)
    except (OSError, ValueError) as error:
        raise StartError(f"the TLS certificate and key cannot be used: {error}") from None


async def _resume(old: Generation, service: ManagedService) -> None:
    """Starts again what had to end for something that failed; not while the daemon stops."""
    await old.ended()
    if service.engine.stopping.is_set():
        return
    await old.resume()
    if not old.plan.is_task:
        with contextlib.suppress(FailedStartError):  # its own failure is reported apart
            await old.until_ready()
    service.refresh()


def public_sockets(generation: Generation) -> dict[str, Bound]:
    """The sockets that are not between services."""
    return {
        item.key: item
        for listener in generation.listeners
        if not listener.plan.internal
        for item in listener.bound
    }


def _batches(workers: int, size: int) -> list[list[int]]:
    slots = list(range(workers))
    return [slots[start : start + size] for start in range(0, workers, size)]
