"""A generation of one service: Circus's watcher, with servd's slots, back-off and drains."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Iterable
from typing import Protocol

import structlog
from circus.watcher import Watcher

from servd.core.events import Event
from servd.core.exhaustion import is_exhaustion
from servd.supervisor.circus.beside import run_beside
from servd.supervisor.circus.gpu_gate import GpuGate, NoRoomError
from servd.supervisor.circus.launch import Launch
from servd.supervisor.circus.process import ProcessListener, WorkerProcess
from servd.supervisor.circus.start_limiter import StartLimiter
from servd.supervisor.circus.worker_source import worker_source
from servd.supervisor.respawn import Death, RestartHistory, after_death
from servd.wire.graces import UNREADY_STOP_SECONDS

log = structlog.get_logger()


class WatcherObserver(ProcessListener, Protocol):
    """Receives what happens to the processes of a watcher: `died` (unexpectedly), `ended` (as
    requested), `overdue` (not exited in time, and killed), `not_spawned` (the system could not
    start it), `held_up` (a start waits).
    """

    def spawned(self, process: WorkerProcess) -> None: ...
    def died(self, process: WorkerProcess, status: int, history: RestartHistory) -> None: ...
    def overdue(self, process: WorkerProcess, seconds: float) -> None: ...
    def stop_requested(self, process: WorkerProcess, reason: str) -> None: ...
    def stop_command_failed(self, process: WorkerProcess, error: str) -> None: ...
    def ended(self, process: WorkerProcess, status: int) -> None: ...
    def not_spawned(self, slot: int, error: OSError, history: RestartHistory) -> None: ...
    def held_up(self, slot: int, reason: str, *, is_new: bool) -> None: ...


class ServiceWatcher(Watcher):  # type: ignore[misc]  # Circus has no types
    """Keeps `workers` processes of one generation running.

    `processes` maps pids to processes, as everywhere in Circus. Each has a slot, from 0, which is
    its SERVD_WORKER. `history` holds the deaths of each slot, `attempts` those of replacements of
    running processes. A slot on `probation` is filled once, and not again after a death; one of
    `drained_slots` stays empty. `stop_reason` is logged for processes without their own.
    """

    processes: dict[int, WorkerProcess]
    numprocesses: int

    def __init__(self, launch: Launch, observer: WatcherObserver, limiter: StartLimiter) -> None:
        super().__init__(
            f"{launch.plan.name}@{launch.generation}",
            "servd worker",
            numprocesses=launch.plan.workers,
            working_dir=launch.plan.directory,
            autostart=False,
        )
        self.launch = launch
        self.observer = observer
        self.limiter = limiter
        self.source = worker_source(
            launch.plan, launch.context.templates, limiter, self.manage_processes
        )
        self.gate = GpuGate(observer.held_up)
        self.history: dict[int, RestartHistory] = {}
        self.attempts: dict[int, RestartHistory] = {}
        self.probation: set[int] = set()
        self.drained_slots: set[int] = set()
        self.stop_reason = "stopped"
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._stopping: set[asyncio.Task[None]] = set()

    @property
    def _process_class(self) -> type[WorkerProcess]:
        return WorkerProcess

    @property
    def staying(self) -> list[WorkerProcess]:
        """The processes that are not stopping."""
        return [process for process in self.processes.values() if not process.stopping]

    @property
    def is_pausing(self) -> bool:
        """Whether a slot waits for the end of its back-off."""
        now = self._loop.time()
        return any(history.until > now for history in self.history.values())

    @property
    def has_exited(self) -> bool:
        """Whether every slot is empty because its process has ended as the policy wants it."""
        slots = range(self.numprocesses)
        over = [self.history[slot].over for slot in slots if slot in self.history]
        return bool(slots) and not self.staying and over == ["exited"] * len(slots)

    def gives_up(self, slots: Iterable[int]) -> bool:
        """Whether one of `slots` is empty and will not be filled again."""
        return any(
            self.history[slot].over or (slot in self.probation and self.history[slot].failures)
            for slot in set(self.empty_slots()) & set(slots)
            if slot in self.history
        )

    def failed_lately(self, times: int) -> bool:
        """Whether a slot has had `times` deaths in a row, and no proven worker since."""
        proof = self.launch.plan.restart.reset_after
        proven = {p.slot for p in self.processes.values() if p.was_ready and p.lived >= proof}
        return any(
            history.failures >= times and slot < self.numprocesses and slot not in proven
            for slot, history in self.history.items()
        )

    def retry_slots(self, slots: Iterable[int]) -> None:
        """Fills `slots` on probation, and forgets their history."""
        for slot in slots:
            self.probation.add(slot)
            self.history.pop(slot, None)
        self.manage_processes()

    @property
    def is_full(self) -> bool:
        """Whether every slot has a process, so that there is nothing to start."""
        slots = {process.slot for process in self.processes.values() if not process.stopping}
        return len(slots) == self.numprocesses and not self.drained_slots

    def empty_slots(self) -> list[int]:
        """Slots that should have a process, and have none."""
        taken = {process.slot for process in self.staying} | self.drained_slots
        return [slot for slot in range(self.numprocesses) if slot not in taken]

    def retry(self) -> None:
        """Forgets the whole history, and fills the slots."""
        self.history.clear()
        self.attempts.clear()
        self._cancel_timer()
        self.manage_processes()

    def end_probation(self, launch: Launch) -> None:
        """Starts workers with `launch` from now on, and keeps them running."""
        self.launch = launch
        self.probation.clear()
        self.manage_later()

    async def end_slots(self, slots: Iterable[int]) -> None:
        """Drains the workers of `slots`."""
        ending = set(slots)
        leaving = [p for p in self.processes.values() if p.slot in ending]
        await asyncio.gather(*(self.kill_process(process) for process in leaving))

    async def begin(self) -> None:
        """Starts as many workers as the start limiter allows; the rest follow."""
        if self.is_stopped():
            self._status = "active"
        self.manage_processes()

    def manage_processes(self) -> None:
        """Fills empty slots whose pause is over. Never blocks."""
        if not self.is_active() or not self.respawn:
            return
        now = self._loop.time()
        pauses = []
        empty = self.empty_slots()
        self.gate.keep(empty)
        for slot in empty:
            history = self.history.get(slot, RestartHistory())
            if history.over or (slot in self.probation and history.failures):
                continue
            if history.until > now:
                pauses.append(history.until)
            elif self.limiter.is_open and self._has_room(slot) and self._can_start():
                self.spawn_process(slot)
        if self.limiter.is_open:
            pauses += self.gate.deadlines(self.launch)
        self._cancel_timer()
        if pauses:
            self._timer = self._loop.call_at(min(pauses), self.manage_processes)

    def _has_room(self, slot: int) -> bool:
        """Whether the GPUs of a slot have room. One that waits for too long has failed to start."""
        try:
            return self.gate.opens(self.launch, slot, on_probation=slot in self.probation)
        except NoRoomError as error:
            self._not_spawned(slot, error)
            return False

    def _can_start(self) -> bool:
        """Whether a worker can be started now. What it needs may fail for all that are missing."""
        try:
            return self.source.prepare(self.launch)
        except OSError as error:
            for slot in self.empty_slots():
                self._not_spawned(slot, error)
            return False

    def spawn_process(self, recovery_wid: int | None = None) -> bool:
        """Starts a process in the slot. A failure to start is a death like any other."""
        slot = recovery_wid or 0
        try:
            process = self._process_class(self.launch, slot, self, self.observer)
        except Exception as fault:  # of one service: the others go on being looked after
            error = fault if isinstance(fault, OSError) else OSError(str(fault))
            self._not_spawned(slot, error)
            return False
        self.processes[process.pid] = process
        self.limiter.enter(process)
        room, gpus = self.launch.context.gpus, self.launch.gpus_of(slot)
        room.started(process, self.launch.plan, gpus)
        process.ready.add_done_callback(lambda _: room.settled(process))
        process.exited.add_done_callback(lambda _: room.gone(process))
        self.observer.spawned(process)
        return True

    def _not_spawned(self, slot: int, error: OSError) -> None:
        death = Death(status=-1, was_ready=False, lived=0.0)
        history = self._remember(slot, death, over=not is_exhaustion(error))
        self.observer.not_spawned(slot, error, history)
        self.manage_later()

    def start_beside(self, process: WorkerProcess) -> WorkerProcess | None:
        """Starts another process in the slot of `process`, which continues for now; None when the
        system cannot. Its death counts for `attempts`, not for the slot.
        """
        if not self.is_active() or not self._can_start() or not self.spawn_process(process.slot):
            return None
        return next(reversed(self.processes.values()))

    def _books(self, slot: int) -> dict[int, RestartHistory]:
        """Where a death in `slot` counts: in `attempts` if another process is there."""
        taken = any(process.slot == slot for process in self.staying)
        if not taken:
            self.attempts.pop(slot, None)
        return self.attempts if taken else self.history

    def reap_process(self, pid: int, status: int | None = None) -> None:
        """Removes a dead process. An unexpected exit enters the history and leads to a restart."""
        process = self.processes.pop(pid, None)
        if process is None:
            return
        result = process.reap() if status is None else status
        if process.stopping or not self.is_active():
            self.observer.ended(process, result or 0)
            return
        was_ready = process.was_ready or (self.launch.plan.app is None and result == 0)
        death = Death(result or 0, was_ready, process.lived)
        self.manage_later()
        self.observer.died(process, result or 0, self._remember(process.slot, death))

    def reap_processes(self) -> None:
        """Removes all processes that have ended."""
        for pid, process in list(self.processes.items()):
            if _has_ended(process):
                self.reap_process(pid, process._worker.returncode)

    def _remember(self, slot: int, death: Death, *, over: bool = True) -> RestartHistory:
        """Records a death. Without `over` the restarts never end."""
        books = self._books(slot)
        history = books.get(slot, RestartHistory())
        jitter = random.uniform(-1, 1)  # noqa: S311  # spreads restarts, protects nothing
        restart, now = self.launch.plan.restart, self._loop.time()
        if not over and restart.policy != "never":
            restart = restart.model_copy(update={"policy": "always", "give_up_after": 0})
        books[slot] = after_death(history, death, restart, now, jitter)
        return books[slot]

    def manage_later(self) -> None:
        """Fills empty slots after the current turn of the loop."""
        self._loop.call_soon(self.manage_processes)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def ask_to_end(self, process: WorkerProcess, stop_signal: int | None = None) -> None:
        """Requests that a process drains, once."""
        if process.stopping:
            return
        self.observer.stop_requested(process, process.stop_reason or self.stop_reason)
        process.stopping = True
        process.asked_at = self._loop.time()
        plan = self.launch.plan
        number = stop_signal or (plan.stop_signal if plan.command else signal.SIGTERM)
        if plan.stop_command and stop_signal is None:
            task = self._loop.create_task(self._stop_by_command(process, number))
            self._stopping.add(task)
            task.add_done_callback(self._stopping.discard)
        else:
            process.signal_self(number)

    async def _stop_by_command(self, process: WorkerProcess, number: int) -> None:
        """Runs `stop_command`; sends the signal if that fails."""
        plan = self.launch.plan
        try:
            status = await run_beside(process, plan.stop_command, plan.stop_seconds)
            error = f"exited with status {status}" if status else ""
        except TimeoutError:
            return  # the worker is killed now
        except OSError as failure:
            error = f"cannot be run: {failure.strerror}"
        if error and not process.exited.done():
            self.observer.stop_command_failed(process, f"{plan.stop_command[0]} {error}")
            process.signal_self(number)

    async def kill_process(
        self,
        process: WorkerProcess,
        stop_signal: int | None = None,
        graceful_timeout: float | None = None,
    ) -> bool:
        """Asks a process to drain; kills its group at the deadline. Whether it ended by itself."""
        self.ask_to_end(process, stop_signal)
        plan = self.launch.plan
        timeout = plan.stop_seconds if graceful_timeout is None else graceful_timeout
        if not process.was_ready:
            timeout = min(timeout, UNREADY_STOP_SECONDS)
        try:
            await asyncio.wait_for(asyncio.shield(process.exited), timeout)
        except TimeoutError:
            self.observer.overdue(process, timeout)
            process.signal_group(signal.SIGKILL)
            await process.exited
            return False
        return True

    async def kill_processes(
        self, stop_signal: int | None = None, graceful_timeout: float | None = None
    ) -> None:
        """Asks all processes to drain, at the same time."""
        leaving = list(self.processes.values())
        await asyncio.gather(
            *(self.kill_process(p, stop_signal, graceful_timeout) for p in leaving)
        )

    async def end(self) -> None:
        """Drains everything and starts nothing new."""
        if self.is_stopped():
            return
        self._status = "stopping"
        self._cancel_timer()
        self.gate.keep(())
        await self.kill_processes()
        self.source.close()
        self._status = "stopped"

    def kill_now(self) -> None:
        """Kills every process group immediately and starts nothing new."""
        if self.is_active():
            self._status = "stopping"
            self._cancel_timer()
            self.gate.keep(())
        for process in list(self.processes.values()):
            process.stopping = True
            process.signal_group(signal.SIGKILL)


def _has_ended(process: WorkerProcess) -> bool:
    """Reaps a process that has ended. A fault in reading its last words does not undo its end."""
    try:
        return process.reap() is not None
    except Exception:
        if process.is_alive():
            raise
        log.exception(Event.INTERNAL_ERROR, service=process.launch.plan.name)
        return True
