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
from servd.supervisor.worker_group import WorkerGroup


class Replace(Step):
    """`add`, `roll`, `switch`, `rebind`: a new generation, all at once beside the old."""

    generation: Generation | None = None
    hands_over = False

    async def prepare(self) -> None:
        """The new generation is ready; it accepts only where nobody serves yet."""
        generation = self._next()
        self.hands_over = self._must_hand_over(generation)
        at_once = self._serves_nobody and not self.hands_over
        await generation.begin(accept=at_once or generation.plan.app is None, probation=True)
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
        own = old.public_sockets if old is not None else {}
        return any(item.users > 1 + (key in own) for key, item in new.public_sockets.items())

    async def accept(self) -> None:
        """The last moment at which the new generation may turn out not to stand."""
        assert self.generation is not None
        self.generation.check()
        self.generation.apply_options()
        if not self.hands_over:
            await self.generation.workers.accept()

    async def retire_old(self) -> None:
        """The new generation takes the place of the old."""
        assert self.generation is not None
        self.leaving = self.service.succeed_by(self.generation)
        if not self.hands_over:
            self.generation.workers.end_probation()
        if self.leaving is not None:
            await self.service.replace(self.leaving)
        self.service.refresh()

    async def accept_late(self) -> None:
        """A worker that died meanwhile is replaced by one that accepts."""
        assert self.generation is not None
        if self.hands_over:
            with contextlib.suppress(FailedStartError):
                await self.generation.workers.accept()
            self.generation.workers.accept_later()
            self.generation.workers.end_probation()

    async def undo(self) -> None:
        """The new generation goes."""
        self.service.upcoming = None
        if self.generation is not None:
            await self.generation.discard()
        if self.service.current is not None:
            self.service.current.apply_options()
        self.service.refresh()


class Batches(Replace):
    """`roll` with few at a time: new workers accept as old ones go."""

    disruptive = True

    def __init__(self, change: Change, service: ManagedService) -> None:
        super().__init__(change, service)
        self._swapped: list[list[int]] = []
        self._groups: tuple[WorkerGroup, WorkerGroup] | None = None

    async def prepare(self) -> None:
        """A batch of new workers ready, then a batch of old ones drained, until all are new."""
        current = self.service.current
        assert current is not None
        assert isinstance(current.workers, WorkerGroup)
        old, generation = current.workers, self._next()
        new = await generation.begin(probation=True, slots=0)
        self._groups = old, new
        self.service.refresh()
        for batch in _batches(self.after.workers, self.change.batch):
            await new.start_slots(batch)
            self._swapped.append(batch)
            await old.drain_slots(batch)

    async def undo(self) -> None:
        """Old workers come back as the new ones go."""
        try:
            if self._groups is not None:
                await self._swap_back(*self._groups)
        finally:
            await super().undo()

    async def _swap_back(self, old: WorkerGroup, new: WorkerGroup) -> None:
        for batch in reversed(self._swapped):
            if self.service.context.stopping.is_set():
                return
            with contextlib.suppress(FailedStartError):  # then it is tried again, as ever
                await old.restart_slots(batch)
            await new.drain_slots(batch)


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
            await self.old.stop_accepting()
            if self.old.plan.app is None or self.old.plan.stands_alone:  # others drain meanwhile
                await self.old.wait_ended()
        for leaving in self.service.draining:  # what was stopped before has to leave its address
            if leaving.plan.app is None or leaving.plan.stands_alone:
                await leaving.wait_ended()
        generation = generation or self._next()
        await generation.begin(probation=True)
        self.service.refresh()
        await generation.until_ready()

    async def retire_old(self) -> None:
        """The old has left already."""
        assert self.generation is not None
        self.leaving = self.service.succeed_by(self.generation)
        if self.leaving is not None:
            self.service.draining.append(self.leaving)
        self.generation.workers.end_probation()
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
        if old is not None and not old.is_over:
            if old.workers.processes:
                self.cut_short = old
            await old.stop_accepting()
            await old.wait_ended()
        generation = self._next()
        await generation.begin()
        await generation.until_ready()

    async def retire_old(self) -> None:
        """The run is over, and so was the one before."""
        assert self.generation is not None
        self.service.succeed_by(self.generation)
        self.generation.workers.end_probation()
        self.service.refresh()

    async def undo(self) -> None:
        """What was going on before begins again; what the task did stays done."""
        await super().undo()
        if self.cut_short is not None:
            await _resume(self.cut_short, self.service)


class Adjust(Step):
    """`live` and `scale`: the same workers continue, more or fewer of them."""

    before: ServicePlan | None = None
    wanted = 0

    async def prepare(self) -> None:
        """Further workers are ready."""
        current = self.service.current
        if current is None:
            return
        verify_tls(self.after)
        self.before, self.wanted = current.plan, current.workers.wanted
        if self.after.is_task:
            return
        if self.after.workers > self.wanted and current.workers.has_begun:
            await current.adjust(self.after)
            current.workers.resize(self.after.workers)
            await current.until_ready(range(self.wanted, self.after.workers))
        elif self.after.workers < self.wanted:
            await current.workers.fill(self.after.workers)

    async def accept(self) -> None:
        """The running workers take the new values over."""
        if self.before is not None and self.service.current is not None:
            await self.service.current.adjust(self.after)

    async def retire_old(self) -> None:
        """Workers that are too many drain."""
        self.service.plan = self.after
        current = self.service.current
        if current is None or not current.workers.has_begun:
            return
        current.workers.end_probation()
        if not self.after.is_task and self.after.workers < current.workers.wanted:
            current.workers.resize(self.after.workers)
            await current.workers.end_surplus()
        self.service.refresh()

    async def undo(self) -> None:
        """The workers have what they had, and are as many as they were."""
        current = self.service.current
        if self.before is None or current is None:
            return
        with contextlib.suppress(FailedStartError, OSError):
            await current.adjust(self.before)
        if not current.workers.has_begun:
            return
        if current.workers.wanted > self.wanted:
            current.workers.resize(self.wanted)
            await current.workers.end_surplus()
        current.workers.end_probation()
        self.service.refresh()


class Start(Step):
    """A service that starts by itself: bound now, so that clients wait instead of being refused,
    and started by the supervisor once what it needs allows it. Its failure to start is its own, and
    undoes nothing; nor does its failure to bind, if `tolerant`: then that is its `error`.
    """

    generation: Generation | None = None
    error = ""

    def __init__(self, change: Change, service: ManagedService, *, tolerant: bool = False) -> None:
        super().__init__(change, service)
        self.tolerant = tolerant

    async def prepare(self) -> None:
        """Its addresses are taken. Raises `StartError`."""
        generation = self.service.new_generation(self.after)
        try:
            generation.bind()
        except StartError as error:
            generation.release()
            if not self.tolerant:
                raise
            self.error = str(error)
        else:
            self.generation = generation

    async def retire_old(self) -> None:
        """It takes the place of what was there."""
        if self.generation is None:
            return
        old = self.service.promote(self.generation)
        if old is not None:
            await self.service.replace(old)

    async def until_possible(self) -> None:
        """Returns when only what it needs is in its way."""

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
    """Starts again what had to end for something that failed; not while the daemon stops. What only
    waited for its start continues to wait.
    """
    await old.wait_ended()
    if service.context.stopping.is_set():
        return
    if not old.workers.has_begun:
        old.bind()
        return
    await old.resume()
    if not old.plan.is_task:
        with contextlib.suppress(FailedStartError):  # its own failure is reported apart
            await old.until_ready()
    service.refresh()


def _batches(workers: int, size: int) -> list[list[int]]:
    slots = list(range(workers))
    return [slots[start : start + size] for start in range(0, workers, size)]
