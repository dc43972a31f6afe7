"""All changes of one reload together: prepared, then committed, or undone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Iterable, Mapping
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
    """A change could not be made, and everything was undone.

    `service` is whose it was, `cause` why in one line, `last_lines` what its worker wrote last.
    """

    def __init__(self, service: str, cause: str, last_lines: tuple[str, ...] = ()) -> None:
        self.service = service
        self.cause = cause
        self.last_lines = last_lines
        super().__init__(f"{service}: {cause}")


class ApplyTransaction:
    """Makes steps in two phases. `needs` is the graph that shall be."""

    def __init__(self, steps: Mapping[str, Step], needs: Graph) -> None:
        self.steps = steps
        self.needs = needs
        self._begun: list[Step] = []

    async def prepare(self) -> None:
        """Everything up to the point of no return. Raises `ApplyError` when everything was undone;
        whoever cancels it has it undone too.
        """
        try:
            await self._prepare()
            await _gather_or_cancel(self._run(step, step.accept()) for step in self.steps.values())
        except BaseException:
            await to_the_end(self.undo())
            raise

    async def commit(self) -> None:
        """What there is no way back from: never fails, and must not be cancelled."""
        removals = [step for step in self.steps.values() if isinstance(step, Remove)]
        others = [step for step in self.steps.values() if not isinstance(step, Remove)]
        await self._commit_all(step.retire_old() for step in others)
        for step in removals:  # in order: dependents before what they depended on
            step.begin()
        await self._commit_all(step.retire_old() for step in removals)
        await self._commit_all(step.accept_late() for step in others)

    async def _prepare(self) -> None:
        """A step after those that it depends on, independent ones at the same time."""
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
        """What each step waits for. Those that take something away from what runs wait for all
        that neither do nor depend on such: whatever can fail harmlessly has failed before.
        """
        names = [name for name in self.needs if name in self.steps]
        waits_for = {name: {d for d in self.needs[name] if d in self.steps} for name in names}
        harsh = {name for name in names if self.steps[name].disruptive}
        behind = set(harsh)
        for name in names:  # `needs` lists dependencies first
            if behind & set(self.needs[name]):
                behind.add(name)
        for name in harsh:
            waits_for[name] |= set(names) - behind
        return waits_for

    @staticmethod
    async def _commit_all(moves: Iterable[Awaitable[None]]) -> None:
        """Makes moves that there is no way back from: what goes wrong with one is no reason to
        leave the others out.
        """
        for failure in await asyncio.gather(*moves, return_exceptions=True):
            if isinstance(failure, Exception):
                log.error(Event.INTERNAL_ERROR, exc_info=failure)

    @staticmethod
    async def _run(step: Step, move: Awaitable[None]) -> None:
        """Makes a move; what goes wrong is told with the name of the service."""
        name = step.change.service
        try:
            await move
        except FailedStartError as error:
            lines = error.last.last_lines if error.last is not None else ()
            raise ApplyError(name, str(error), lines) from None
        except (ServdError, OSError) as error:
            raise ApplyError(name, str(error)) from None
        except Exception as error:  # a fault of ours must not leave a reload half done
            log.exception(Event.INTERNAL_ERROR, service=name)
            raise ApplyError(name, f"internal error: {error!r}") from error

    async def undo(self) -> None:
        """Takes back what was prepared, in the opposite order."""
        if self._begun:
            log.info(Event.RELOAD_UNDONE, services=[step.change.service for step in self._begun])
        for step in reversed(self._begun):
            try:
                await step.undo()
            except Exception:  # the others must be undone all the same
                log.exception(Event.UNDO_FAILED, service=step.change.service)


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is done whole even if whoever waits for it is cancelled: that
    takes effect afterwards.
    """
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise
            cancelled = True
        except Exception:  # told by the result below
            break
    if cancelled:
        raise asyncio.CancelledError
    return task.result()


async def _gather_or_cancel(moves: Iterable[Awaitable[None]]) -> None:
    """All at the same time; the first that fails cancels the others, and is raised."""
    tasks = [asyncio.ensure_future(move) for move in moves]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
