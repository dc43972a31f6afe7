"""What happens to the workers of a generation, as events with their reasons, and in its books."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servd.supervisor.circus.process import WorkerProcess
from servd.supervisor.exits import WorkerExit, exit_of, not_spawned, why_restarted
from servd.supervisor.respawn import RestartHistory

if TYPE_CHECKING:
    from servd.supervisor.generation import Generation


class WorkerEventRecorder:
    """The observer of a generation's watcher."""

    def __init__(self, generation: Generation) -> None:
        self.generation = generation

    def spawned(self, process: WorkerProcess) -> None:
        """A worker was started: the generation waits for its readiness."""
        self._log("worker started", process, reason=self._why_started(process))
        self.generation.expect(process)

    def _why_started(self, process: WorkerProcess) -> str:
        generation = self.generation
        watcher = generation.watcher
        if watcher is None:
            return "start"
        history = watcher.history.get(process.slot)
        if any(p.slot == process.slot and p is not process for p in generation.processes):
            return "takes the place of one that is recycled"
        if history is not None and history.failures:
            return "replaces one that died"
        if process.slot not in watcher.trial:
            return "start"
        return "more workers are wanted" if generation.growing else "new generation"

    def died(self, process: WorkerProcess, status: int, history: RestartHistory) -> None:
        """A worker ended without being asked to: say why, and what happens next."""
        generation = self.generation
        if generation.plan.is_task and status == 0:
            generation.completed = True
            seconds = round(process.lived, 3)
            generation.log.info("task completed", pid=process.pid, seconds=seconds)
            generation.refresh()
            return
        generation.start_failures += not process.was_ready
        if not history.over:
            generation.counts.restarted(generation.plan.name, why_restarted(process, status))
        self._lost(exit_of(process, status, generation.engine.environ), history)

    def not_spawned(self, slot: int, error: OSError, history: RestartHistory) -> None:
        """The system could not start a worker: a failure like any other."""
        generation = self.generation
        generation.start_failures += 1
        if not history.over:
            generation.counts.restarted(generation.plan.name, "startup")
        self._lost(not_spawned(generation.plan, slot, error), history)

    def _lost(self, exit_: WorkerExit, history: RestartHistory) -> None:
        generation = self.generation
        generation.last_exit = exit_
        generation.owner.lost(generation, exit_, history)
        generation.refresh()

    def leaves(self, process: WorkerProcess, why: str) -> None:
        """A worker is asked to end: it accepts no more, and answers what is in flight."""
        self._log("worker draining", process, reason=why)

    def left(self, process: WorkerProcess, status: int) -> None:
        """A worker ended that was asked to."""
        self._log("worker ended", process, exit_status=status)
        self.generation.refresh()

    def overdue(self, process: WorkerProcess, seconds: float) -> None:
        """A worker did not end in time when it was asked to, and is killed."""
        self.generation.owner.killed()
        self.generation.log.warning(
            "worker killed",
            worker=process.slot,
            pid=process.pid,
            reason=f"did not end within {seconds:g} s of being asked to",
        )

    def _log(self, event: str, process: WorkerProcess, **details: object) -> None:
        self.generation.log.info(event, worker=process.slot, pid=process.pid, **details)
