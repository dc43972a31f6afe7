"""Takes GPUs that have failed out of use."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any

import structlog

from servd.core.errors import ServdError
from servd.core.events import Event
from servd.daemon.gpus.monitor import GpuMonitor
from servd.daemon.reload.desired import DesiredState
from servd.daemon.reload.request import ReloadReport, ReloadRequest
from servd.plan.gpu_faults import Quarantine, meaning_of, text_of, troubles
from servd.supervisor.circus.process import WorkerProcess
from servd.supervisor.supervisor import Supervisor
from servd.supervisor.worker_group import WorkerGroup
from servd.wire.gpus import GpuFault, GpuSnapshot

if TYPE_CHECKING:
    from servd.daemon.metrics.gpus import GpuErrorCounts

_QUIET_SECONDS = 10.0
"""Time in which one error of a GPU is logged once: a broken program causes thousands."""

_ONLY_COUNTED = "none: a program has caused it"
_REPORTED = 'none: daemon.gpu_errors is "report"'
_UNUSED = "none: no service has this instance"
_TAKEN_OUT = "no worker gets it again until `servd gpus release`"

log = structlog.get_logger()


class GpuQuarantine:
    """Acts on the errors of GPUs. `reasons`: why GPUs are in quarantine, by id; everybody who asks
    for it has this very dictionary. `counts`: errors by GPU and Xid.
    """

    def __init__(
        self,
        reasons: dict[str, str],
        monitor: GpuMonitor,
        supervisor: Supervisor,
        desired: Callable[[], DesiredState],
        ask: Callable[[ReloadRequest], asyncio.Future[ReloadReport]],
    ) -> None:
        self.reasons = reasons
        self.counts: dict[tuple[str, int], int] = {}
        self._monitor = monitor
        self._supervisor = supervisor
        self._desired = desired
        self._ask = ask
        self._troubles: dict[str, str] = {}
        self._quiet: dict[tuple[str, int], float] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self) -> None:
        """Listens to the monitor."""
        self._monitor.on_fault = self.take
        self._monitor.subscribe(self.look)

    def look(self, snapshot: GpuSnapshot | None) -> None:
        """Takes new figures: the driver may call a GPU unreliable."""
        if snapshot is None:
            return
        for fault in tuple(troubles(snapshot, self._troubles)):
            self._troubles[fault.gpu] = fault.text
            self.take(fault)

    def take(self, fault: GpuFault) -> None:
        """Takes an error of a GPU."""
        key = (fault.gpu, fault.xid)
        self.counts[key] = self.counts.get(key, 0) + 1
        meaning = meaning_of(fault, self._monitor.snapshot)
        if meaning == "application":
            self._report(Event.GPU_ERROR, fault, _ONLY_COUNTED)
        elif meaning == "driver":
            self._report(Event.GPU_ERROR, fault, "none: the driver has lost all GPUs")
        elif self._is_unused_instance(fault):
            self._report(Event.GPU_ERROR, fault, _UNUSED)
        elif self._desired().loaded.config.daemon.gpu_errors == "report":
            self._report(Event.GPU_FAILED, fault, _REPORTED)
        elif fault.gpu not in self.reasons:
            self._report(Event.GPU_FAILED, fault, _TAKEN_OUT)
            self.reasons[fault.gpu] = text_of(fault)
            self._keep(self._move(fault.gpu))

    def _is_unused_instance(self, fault: GpuFault) -> bool:
        """Whether somebody has removed an instance of a GPU (MIG) that no service has."""
        snapshot = self._monitor.snapshot
        is_there = snapshot is not None and fault.gpu in snapshot.by_id
        if is_there or fault.xid or not fault.gpu.startswith("MIG-"):
            return False
        services = self._desired().plan.services
        return not any(fault.gpu in ids for service in services for ids in service.gpus)

    def shown(self) -> GpuErrorCounts:
        """Returns the errors for the metrics."""
        from servd.daemon.metrics.gpus import GpuErrorCounts

        return GpuErrorCounts(dict(self.counts), frozenset(self.reasons))

    def release(self, name: str) -> str | None:
        """Lets workers have a GPU again, by its id or number; returns its id, or None if it is not
        in quarantine.
        """
        snapshot = self._monitor.snapshot
        found = snapshot.find(name) if snapshot is not None else None
        gpu = found.id if found is not None else name
        if self.reasons.pop(gpu, None) is None:
            return None
        log.info(Event.GPU_RELEASED, gpu=gpu)
        self._supervisor.context.workers.gpus.changed()
        self._keep(self._replan(f"GPU {name} is released"))
        return gpu

    async def _move(self, gpu: str) -> None:
        """Gives its workers other GPUs; without any, they end and wait."""
        await self._replan(f"GPU {gpu} has failed")
        reason = self.reasons.get(gpu)
        for group, process in self._workers_on(gpu) if reason else ():
            process.recycle_reason = "gpu_failed"
            process.recycle_error = f"GPU {gpu}: {reason}"
            group.recycle(process)

    async def _replan(self, why: str) -> None:
        with contextlib.suppress(ServdError):  # logged
            await self._ask(ReloadRequest(why, read=False, now=True))

    def _workers_on(self, gpu: str) -> Iterator[tuple[WorkerGroup, WorkerProcess]]:
        """Yields the workers that have a GPU by the plan in force, each with its group."""
        only = Quarantine({gpu: "failed"})
        known = self._monitor.snapshot.gpus if self._monitor.snapshot is not None else ()
        for service in self._supervisor.services.values():
            group = service.current.workers if service.current is not None else None
            if not isinstance(group, WorkerGroup):
                continue
            for process in group.processes:
                if any(only.reason(name, known) for name in process.launch.gpus_of(process.slot)):
                    yield group, process

    def _report(self, event: Event, fault: GpuFault, next_action: str) -> None:
        key, now = (fault.gpu, fault.xid), asyncio.get_running_loop().time()
        if now < self._quiet.get(key, 0.0):
            return
        self._quiet[key] = now + _QUIET_SECONDS
        workers = [f"{p.launch.plan.name} worker {p.slot}" for _, p in self._workers_on(fault.gpu)]
        details = {"gpu": fault.gpu, "xid": fault.xid or None, "workers": workers}
        log.error(event, error=text_of(fault), next_action=next_action, **details)

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
