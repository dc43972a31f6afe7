"""All changes of one reload together: prepared, then committed or undone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import structlog

from servd.core.errors import ServdError
from servd.core.events import Event
from servd.core.graph import Graph
from servd.supervisor.apply.removal import Remove
from servd.supervisor.apply.step import Step
from servd.supervisor.exits import FailedStartError

T = TypeVar("T")

log = structlog.get_logger()


class ApplyError(ServdError):
    """A change failed, and everything was undone. `service` is the service's name, `cause` the
    reason in one line, `last_lines` the last output of its worker.
    """

    def __init__(self, service: str, cause: str, last_lines: tuple[str, ...] = ()) -> None:
        self.service = service
        self.cause = cause
        self.last_lines = last_lines
        super().__init__(f"{service}: {cause}")

    def after_restart_of(self, services: Sequence[str]) -> ApplyError:
        """The same, with the services that were stopped for the change and started again."""
        again = f"{self.cause} (interrupted and restarted: {', '.join(services)})"
        return ApplyError(self.service, again, self.last_lines)


class ApplyTransaction:
    """Makes steps in two phases. `needs` is the graph after the change."""

    def __init__(self, steps: Mapping[str, Step], needs: Graph) -> None:
        self.steps = steps
        self.needs = needs
        self._begun: list[Step] = []

    async def prepare(self) -> None:
        """Makes all moves before the point of no return. Raises `ApplyError`; a failure or a
        cancellation undoes everything.
        """
        try:
            await self._prepare()
            await _gather_or_cancel(self._run(step, step.accept()) for step in self.steps.values())
        except BaseException as error:
            await to_the_end(self.undo())
            restarted = [s.change.service for s in self._begun if s.interrupted is not None]
            if isinstance(error, ApplyError) and restarted:
                raise error.after_restart_of(restarted) from None
            raise

    async def commit(self) -> None:
        """Makes the moves that cannot be undone: never fails, and must not be cancelled."""
        removals = [step for step in self.steps.values() if isinstance(step, Remove)]
        others = [step for step in self.steps.values() if not isinstance(step, Remove)]
        await self._commit_all(step.retire_old() for step in others)
        for step in removals:  # in order: dependents before what they depended on
            step.begin()
        await self._commit_all(step.retire_old() for step in removals)
        await self._commit_all(step.accept_late() for step in others)

    async def _prepare(self) -> None:
        """Prepares each step after those that it depends on, independent ones in parallel."""
        waits_for = self._order()
        done = {name: asyncio.Event() for name in waits_for}

        async def one(name: str) -> None:
            for other in waits_for[name]:
                await done[other].wait()
            self._begun.append(self.steps[name])
            await self._run(self.steps[name], self.steps[name].prepare())
            done[name].set()

        await _gather_or_cancel(one(name) for name in waits_for)

    def _order(self) -> dict[str, set[str]]:
        """What each step waits for. Disruptive steps wait for all that neither are as disruptive
        nor depend on such ones, so that every harmless failure comes first.
        """
        names = [name for name in self.needs if name in self.steps]
        waits_for = {name: {d for d in self.needs[name] if d in self.steps} for name in names}
        for level in (1, 2):
            disruptive = {name for name in names if self.steps[name].disruption >= level}
            behind = set(disruptive)
            for name in names:  # `needs` lists dependencies first
                if behind & set(self.needs[name]):
                    behind.add(name)
            for name in disruptive:
                waits_for[name] |= set(names) - behind
        return waits_for

    @staticmethod
    async def _commit_all(moves: Iterable[Awaitable[None]]) -> None:
        """Makes commit moves; logs failures and continues, since they cannot be undone."""
        for failure in await asyncio.gather(*moves, return_exceptions=True):
            if isinstance(failure, Exception):
                log.error(Event.INTERNAL_ERROR, exc_info=failure)

    @staticmethod
    async def _run(step: Step, move: Awaitable[None]) -> None:
        """Makes a move; an error gets the name of the service."""
        name = step.change.service
        try:
            await move
        except FailedStartError as error:
            lines = error.last.last_lines if error.last is not None else ()
            raise ApplyError(name, str(error), lines) from None
        except (ServdError, OSError) as error:
            raise ApplyError(name, str(error)) from None
        except Exception as error:  # servd's own fault must not leave a reload half done
            log.exception(Event.INTERNAL_ERROR, service=name)
            raise ApplyError(name, f"internal error: {error!r}") from error

    async def undo(self) -> None:
        """Undoes what was prepared, in the opposite order."""
        if self._begun:
            log.info(Event.RELOAD_UNDONE, services=[step.change.service for step in self._begun])
        for step in reversed(self._begun):
            try:
                await step.undo()
            except Exception:  # the others must be undone too
                log.exception(Event.UNDO_FAILED, service=step.change.service)


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Runs `work` to its end even if the caller is cancelled, then raises the cancellation."""
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise
            cancelled = True
        except Exception:  # raised by the result below
            break
    if cancelled:
        raise asyncio.CancelledError
    return task.result()


async def _gather_or_cancel(moves: Iterable[Awaitable[None]]) -> None:
    """Runs all in parallel; the first failure cancels the others, and is raised."""
    tasks = [asyncio.ensure_future(move) for move in moves]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
