"""Logs worker lifecycle events and records them on the generation."""

from __future__ import annotations

from typing import Any, Protocol

from servd.core.events import Event
from servd.supervisor.circus.launch import Launch
from servd.supervisor.circus.process import WorkerProcess
from servd.supervisor.circus.watcher import ServiceWatcher
from servd.supervisor.exits import WorkerExit, exit_of, not_spawned, restart_reason
from servd.supervisor.respawn import RestartHistory
from servd.supervisor.worker_record import WorkerRecord


class WorkerTeam(Protocol):
    """The workers that the events are about. `expect` waits for the readiness of a new worker,
    `recycle` replaces one that requests it; `lost` and `overdue` are unexpected and late exits.
    """

    log: Any
    record: WorkerRecord
    growing: int

    @property
    def watcher(self) -> ServiceWatcher: ...
    @property
    def launch(self) -> Launch: ...
    def expect(self, process: WorkerProcess) -> None: ...
    def lost(self, exit_: WorkerExit, history: RestartHistory) -> None: ...
    def overdue(self) -> None: ...
    def recycle(self, process: WorkerProcess) -> None: ...
    def refresh(self) -> None: ...


class WorkerEventRecorder:
    """The observer of a generation's watcher."""

    def __init__(self, team: WorkerTeam) -> None:
        self._team = team

    def spawned(self, process: WorkerProcess) -> None:
        """A worker was started: the team waits for its readiness."""
        self._log(Event.WORKER_STARTED, process, reason=self._start_reason(process))
        self._team.expect(process)

    def _start_reason(self, process: WorkerProcess) -> str:
        watcher = self._team.watcher
        history = watcher.history.get(process.slot)
        if any(p.slot == process.slot and p is not process for p in watcher.staying):
            return "replaces a recycled worker"
        if history is not None and history.failures:
            return "replaces a worker that exited"
        if process.slot not in watcher.probation:
            return "start"
        return "scaled up" if self._team.growing else "new generation"

    def died(self, process: WorkerProcess, status: int, history: RestartHistory) -> None:
        """A worker exited unexpectedly."""
        team = self._team
        if team.launch.plan.is_task and status == 0:
            team.record.completed = True
            seconds = round(process.lived, 3)
            team.log.info(Event.TASK_COMPLETED, pid=process.pid, seconds=seconds)
            team.refresh()
            return
        team.record.start_failures += not process.was_ready
        team.record.app_failed = process.report.app_failed
        exit_ = exit_of(process, status, team.launch.context.environ)
        self._lost(exit_, history, restart_reason(process, status))

    def not_spawned(self, slot: int, error: OSError, history: RestartHistory) -> None:
        """The system could not start a worker: a failure like any other."""
        self._team.record.start_failures += 1
        self._lost(not_spawned(self._team.launch.plan, slot, error), history, "startup")

    def _lost(self, exit_: WorkerExit, history: RestartHistory, reason: str) -> None:
        team = self._team
        if not history.over:
            team.launch.context.counters.restarted(team.launch.plan.name, reason)
        team.record.last_exit = exit_
        team.lost(exit_, history)
        team.refresh()

    def held_up(self, slot: int, reason: str, *, is_new: bool) -> None:
        """A worker waits for room on its GPUs; unless `is_new`, only figures have changed."""
        if is_new:
            self._team.log.info(Event.WORKER_WAITS_FOR_GPU, worker=slot, reason=reason)
        self._team.refresh()

    def recycle_requested(self, process: WorkerProcess) -> None:
        """A worker requests its replacement."""
        self._team.recycle(process)

    def left_behind(self, process: WorkerProcess, left: dict[int, str], seconds: float) -> None:
        """A worker has exited, but processes that it started are running."""
        names = [f"{name} ({pid})" for pid, name in sorted(left.items())]
        self._team.log.warning(
            Event.WORKER_LEFT_PROCESSES,
            worker=process.slot,
            pid=process.pid,
            processes=names,
            next_action=f"killing them in {seconds:g} s" if seconds else "killing them",
        )
        self._team.refresh()

    def stop_requested(self, process: WorkerProcess, reason: str) -> None:
        """A worker begins to stop: it accepts no more and finishes requests in flight."""
        self._log(Event.WORKER_DRAINING, process, reason=reason)

    def stop_command_failed(self, process: WorkerProcess, error: str) -> None:
        """`stop_command` failed: the worker gets its signal."""
        details = {"error": error, "next_action": "sending stop_signal"}
        self._team.log.warning(
            Event.STOP_COMMAND_FAILED, worker=process.slot, pid=process.pid, **details
        )

    def ended(self, process: WorkerProcess, status: int) -> None:
        """A worker exited as requested."""
        self._log(Event.WORKER_ENDED, process, exit_status=status)
        self._team.refresh()

    def overdue(self, process: WorkerProcess, seconds: float) -> None:
        """A worker did not exit in time and is killed."""
        self._team.overdue()
        slot, pid, log = process.slot, process.pid, self._team.log
        reason = f"still running {seconds:g} s after the stop request"
        log.warning(Event.WORKER_KILLED, worker=slot, pid=pid, reason=reason)

    def _log(self, event: Event, process: WorkerProcess, **details: object) -> None:
        self._team.log.info(event, worker=process.slot, pid=process.pid, **details)
