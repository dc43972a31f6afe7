"""How each kind of change is made: prepared, then committed in three moves, or undone."""

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
    """`add`, `roll`, `switch`, `rebind`: a complete new generation next to the old one."""

    generation: Generation | None = None
    hands_over = False
    old: Generation | None = None
    """A generation that `prepare` has ended, and that `undo` starts again."""

    @property
    def _new(self) -> Generation:
        assert self.generation is not None
        return self.generation

    async def prepare(self) -> None:
        """Makes the new generation ready; it accepts only if the service does not serve yet."""
        generation = self._next()
        self.hands_over = self._must_hand_over(generation)
        at_once = self._is_unserved and not self.hands_over
        await generation.begin(accept=at_once or generation.plan.app is None, probation=True)
        self.service.refresh()
        await generation.until_ready()

    @property
    def _is_unserved(self) -> bool:
        """Whether a client would get no answer now."""
        return not self.service.serves

    def _next(self) -> Generation:
        verify_tls(self.after)
        service = self.service
        generation = self.generation = service.upcoming = service.new_generation(self.after)
        generation.bind()
        return generation

    def _must_hand_over(self, new: Generation) -> bool:
        """Whether the old (or another service) must leave its sockets before the new accepts."""
        if self.change.kind == "switch":
            return True
        old = self.service.current
        own = old.public_sockets if old is not None else {}
        return any(item.users > 1 + (key in own) for key, item in new.public_sockets.items())

    async def accept(self) -> None:
        """Makes the last check of the new generation."""
        self._new.check()
        self._new.apply_options()
        if not self.hands_over:
            await self._new.workers.accept()

    async def retire_old(self) -> None:
        """Replaces the old generation by the new one."""
        self.leaving = self.service.succeed_by(self._new)
        if not self.hands_over:
            self._new.workers.end_probation()
        if self.leaving is not None:
            await self._end(self.leaving)
        self.service.refresh()

    async def _end(self, old: Generation) -> None:
        await self.service.replace(old)

    async def accept_late(self) -> None:
        """Lets the new workers accept; one that exited is replaced by one that accepts."""
        if self.hands_over:
            with contextlib.suppress(FailedStartError):
                await self._new.workers.accept()
            self._new.workers.accept_later()
            self._new.workers.end_probation()

    async def undo(self) -> None:
        """Discards the new generation, and starts again what was ended for it."""
        self.service.upcoming = None
        if self.generation is not None:
            await self.generation.discard()
        if self.service.current is not None:
            self.service.current.apply_options()
        self.service.refresh()
        if self.old is not None:
            await _resume(self.old, self.service)


class Batches(Replace):
    """`roll` in batches: new workers accept as old ones leave."""

    disruption = 1

    def __init__(self, change: Change, service: ManagedService) -> None:
        super().__init__(change, service)
        self._swapped: list[list[int]] = []
        self._groups: tuple[WorkerGroup, WorkerGroup] | None = None

    async def prepare(self) -> None:
        """Makes a batch of new workers ready, then drains as many old ones, until all are new."""
        current = self.service.current
        assert current is not None
        assert isinstance(current.workers, WorkerGroup)
        old, generation = current.workers, self._next()
        await generation.begin(probation=True, slots=0)
        new = generation.workers
        assert isinstance(new, WorkerGroup)
        self._groups = old, new
        self.service.refresh()
        slots, size = list(range(self.after.workers)), self.change.batch
        for batch in [slots[start : start + size] for start in range(0, len(slots), size)]:
            await new.start_slots(batch)
            self._swapped.append(batch)
            await old.drain_slots(batch)

    async def undo(self) -> None:
        """Starts the old workers again as the new ones leave."""
        try:
            if self._groups is not None:
                await self._swap_back(*self._groups)
        finally:
            await super().undo()

    async def _swap_back(self, old: WorkerGroup, new: WorkerGroup) -> None:
        for batch in reversed(self._swapped):
            if self.service.context.stopping.is_set():
                return
            with contextlib.suppress(FailedStartError):  # it is tried again later
                await old.restart_slots(batch)
            await new.drain_slots(batch)


class Interrupt(Replace):
    """A command that binds its own address: the old ends, then the new starts."""

    disruption = 2

    async def prepare(self) -> None:
        """Leaves a gap from the end of the old until the new is ready. Where servd binds the
        address it stays bound, and connections wait.
        """
        self.old = self.service.current
        stays = self.old is not None and self.old.plan.app is not None
        generation = self._next() if stays and self.after.app is not None else None
        self.interrupted = self.old
        if self.old is not None:
            await self.old.stop_accepting()
            if self.old.plan.app is None or self.old.plan.stands_alone:  # else it drains meanwhile
                await self.old.wait_ended()
        for leaving in self.service.draining:  # they must leave the address too
            if leaving.plan.app is None or leaving.plan.stands_alone:
                await leaving.wait_ended()
        generation = generation or self._next()
        await generation.begin(probation=True)
        self.service.refresh()
        await generation.until_ready()

    async def _end(self, old: Generation) -> None:
        """Keeps account of the old: `prepare` has stopped it."""
        self.service.draining.append(old)


class Recreate(Interrupt):
    """Old workers that must not overlap with new ones: they drain and exit, then new ones start.
    The sockets stay bound: connections wait in their queues.
    """

    async def prepare(self) -> None:
        """Ends the old once the new sockets are bound. Whatever else can fail comes first."""
        generation = self._next()
        self.old = self.interrupted = self.service.current
        self.service.refresh()
        if self.old is not None:
            await self.old.stop_accepting("replaced")
            await self.old.wait_ended()
        for leaving in self.service.draining:
            await leaving.wait_ended()
        await generation.begin(probation=True)
        self.service.refresh()
        await generation.until_ready()

    async def undo(self) -> None:
        """Starts the old again, on the sockets that the new generation has kept."""
        if self.old is not None and self.generation is not None:
            await self.old.wait_ended()
            self.old.bind()
        await super().undo()


class Task(Replace):
    """A task: runs to its end before its dependents continue. Undone, what it did stays done."""

    disruption = 1

    async def prepare(self) -> None:
        """Ends a run that is in progress, and waits for the new one."""
        old = self.service.current
        if old is not None and not old.is_over:
            if old.workers.processes:
                self.old = old
            await old.stop_accepting()
            await old.wait_ended()
        generation = self._next()
        await generation.begin()
        await generation.until_ready()

    async def _end(self, old: Generation) -> None:
        """Does nothing: both runs are over."""


class Adjust(Step):
    """`live` and `scale`: the same workers continue, more or fewer of them."""

    before: ServicePlan | None = None
    wanted = 0

    async def prepare(self) -> None:
        """Makes additional workers ready."""
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
        """Gives the running workers the new values."""
        if self.before is not None and self.service.current is not None:
            await self.service.current.adjust(self.after)

    async def retire_old(self) -> None:
        """Drains surplus workers."""
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
        """Gives the workers back their values and their number."""
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
    """A service that starts by itself: bound now, so that clients wait instead of being refused;
    the supervisor starts it once its dependencies allow it. Failing to start undoes nothing, nor
    does failing to bind if `tolerant`: that is kept as `error`.
    """

    generation: Generation | None = None
    error = ""

    def __init__(self, change: Change, service: ManagedService, *, tolerant: bool = False) -> None:
        super().__init__(change, service)
        self.tolerant = tolerant

    async def prepare(self) -> None:
        """Binds its addresses. Raises `StartError`."""
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
        """Replaces the current generation."""
        if self.generation is None:
            return
        old = self.service.promote(self.generation)
        if old is not None:
            await self.service.replace(old)

    async def until_possible(self) -> None:
        """Returns when only its dependencies hold it up."""

    async def undo(self) -> None:
        """Releases the addresses."""
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
    ran = service.current is not None and service.current.workers.has_begun
    if change.replaces and ran and not change.plan.is_task and _never_overlap(change):
        return Recreate(change, service)
    if change.kind == "interrupt" or (change.starts and change.plan.stands_alone):
        return Interrupt(change, service)
    if change.starts:
        return Replace(change, service)
    current = service.current
    if change.batch < change.plan.workers and current is not None and current.serves:
        return Batches(change, service)
    return Replace(change, service)


def _never_overlap(change: Change) -> bool:
    """Whether servd binds for the service, and its old workers have to end before the new start."""
    if change.kind == "interrupt" or change.plan.stands_alone:
        return False
    return change.plan.never_overlaps


def verify_tls(plan: ServicePlan) -> None:
    """Raises `StartError` when the certificate and the key of `plan` cannot be used together."""
    if plan.tls is None:
        return
    from servd.http.tls import tls_context

    try:
        tls_context(plan.tls)
    except (OSError, ValueError) as error:
        raise StartError(f"cannot use the TLS certificate and key: {error}") from None


async def _resume(old: Generation, service: ManagedService) -> None:
    """Starts again what ended for a change that failed, unless the daemon stops. What only waited
    for its start continues to wait.
    """
    await old.wait_ended()
    if service.context.stopping.is_set():
        return
    if not old.workers.has_begun:
        old.bind()
        return
    await old.resume()
    if not old.plan.is_task:
        with contextlib.suppress(FailedStartError):  # its own failure is reported separately
            await old.until_ready()
    service.refresh()
