"""Keeps what the driver tells of the GPUs, by a helper process, while services have some."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from typing import Literal

import structlog

from servd.core.events import Event
from servd.daemon.gpus.changes import GpuChanges
from servd.daemon.gpus.helper_link import HelperLink
from servd.host.gpu_helper import NO_PYNVML, may_have_gpus
from servd.host.gpu_query import GpuAnswer, ask_gpus
from servd.plan.model import Plan
from servd.wire.gpu_messages import GpuReport
from servd.wire.gpus import GpuFault, GpuSnapshot

INTERVAL_SECONDS = 1.0
PATIENCE_SECONDS = 10.0
"""Silence after which the driver counts as hanging."""

_TICKS = 10
"""Parts of the patience. They are counted, not timed: a daemon that was suspended itself must not
take its own pause for the driver's.
"""

_FIRST_TICKS = 3 * _TICKS
"""The first answer of a helper may take longer: a driver that nobody uses wakes its GPUs."""

_LONGEST_PAUSE_TICKS = 60
_FRESH_SECONDS = 2.0

_ANSWER_SECONDS = 1.0
"""Time in which an answer without a helper serves all who ask."""

_NEXT_ACTION = "what runs continues: run nvidia-smi, and look for Xid in the kernel log"

log = structlog.get_logger()

Subscriber = Callable[[GpuSnapshot | None], object]

_Loss = Literal["", "absent", "silent", "failed"]
"""Why the GPUs are unknown: no driver, no answer, or one that is no use. "": they are known."""


class GpuMonitor:
    """Runs the helper while a service of the plan has GPUs. `snapshot`: the last that it sent, at
    most `patience` seconds old; None while the GPUs are unknown. `known`: the last, however old:
    which GPUs there are, also while the driver hangs. `on_fault` gets the errors of GPUs as they
    come, maybe before a snapshot shows the consequences; what happens while no helper runs, or one
    is replaced, shows in the next snapshot only.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        interval: float = INTERVAL_SECONDS,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self.snapshot: GpuSnapshot | None = None
        self.known: GpuSnapshot | None = None
        self.on_fault: Callable[[GpuFault], object] = lambda fault: None
        self._environ = environ
        self._interval = interval
        self._tick = patience / _TICKS
        self._patience = patience
        self._subscribers: list[Subscriber] = []
        self._task: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._link: HelperLink | None = None
        self._silence = 0
        """Ticks since the last snapshot."""
        self._reports = 0
        """Reports of the helper that runs."""
        self._loss: _Loss = ""
        self._error = ""
        self._changes = GpuChanges()
        self._asking: asyncio.Task[GpuAnswer] | None = None
        self._answered = 0.0
        """When the last answer without a helper came."""
        self._numbers = itertools.count(1)
        self._looks: dict[int, asyncio.Future[GpuSnapshot]] = {}

    @property
    def helper_pid(self) -> int | None:
        """The pid of the helper, while there is one."""
        return self._link.pid if self._link is not None else None

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Calls `callback` with every new snapshot, and with None when the GPUs are no longer
        known; the function that is returned ends that.
        """
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    async def fresh(self, seconds: float = _FRESH_SECONDS) -> GpuSnapshot | None:
        """Returns a snapshot that is made now; None without an answer in `seconds`."""
        if self._link is None:
            return None
        number = next(self._numbers)
        answer = self._looks[number] = asyncio.get_running_loop().create_future()
        try:
            self._link.look(number)
            return await asyncio.wait_for(answer, seconds)
        except TimeoutError:
            return None
        finally:
            del self._looks[number]

    def look_soon(self) -> None:
        """Asks for a snapshot that is made now, without waiting for it."""
        if self._link is not None:
            self._link.look(next(self._numbers))

    @property
    def latest(self) -> GpuAnswer | None:
        """The snapshot, or why there is none; None while the first is awaited, or nothing is
        watched. May be read in any thread.
        """
        snapshot = self.snapshot
        if self._task is None or snapshot is not None:
            return GpuAnswer(snapshot) if snapshot is not None else None
        if self._loss:
            return GpuAnswer(error=self._error, is_absent=self._loss == "absent")
        return GpuAnswer(error="the GPU helper starts again") if self.known is not None else None

    async def answer(self) -> GpuAnswer:
        """Returns the snapshot, or why there is none. Asks the driver where nothing is watched: one
        helper at a time, however many ask.
        """
        if self._task is not None:
            return self.latest or GpuAnswer()
        now = asyncio.get_running_loop().time()
        is_old = self._asking is not None and self._asking.done()
        if self._asking is None or (is_old and now - self._answered > _ANSWER_SECONDS):
            self._asking = asyncio.get_running_loop().create_task(self._ask())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> GpuAnswer:
        answer = await asyncio.to_thread(ask_gpus, self._environ)
        self._answered = asyncio.get_running_loop().time()
        return answer

    def need(self, plan: Plan) -> None:
        """Starts the helper if services of `plan` have GPUs."""
        if self._task is None and _has_gpus(plan):
            self._task = asyncio.get_running_loop().create_task(self._run())

    def follow(self, plan: Plan) -> None:
        """Starts the helper, or ends it, as services of `plan` have GPUs or none."""
        if _has_gpus(plan):
            self.need(plan)
        else:
            self._cancel()

    async def stop(self) -> None:
        """Ends the helper."""
        self._cancel()
        if self._ending:
            await asyncio.wait(self._ending)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._ending.add(self._task)
            self._task.add_done_callback(self._ending.discard)
        was_known = self.snapshot is not None
        self._task = self._link = self.snapshot = self.known = None
        self._silence, self._loss, self._error = 0, "", ""
        self._changes = GpuChanges()
        if was_known:
            self._tell(None)

    async def _run(self) -> None:
        pause = 1
        while True:
            self._reports = 0
            loss: _Loss = "absent"
            reason = NO_PYNVML
            if may_have_gpus(self._environ):
                loss, reason = await self._listen()
            else:
                self._lose(loss, reason)
            if self._reports:
                pause = 1
            for _ in range(pause):
                await asyncio.sleep(self._tick)
                self._count_silence(loss, reason)
            pause = min(2 * pause, _LONGEST_PAUSE_TICKS)

    async def _listen(self) -> tuple[_Loss, str]:
        """Runs one helper until it ends or is silent for too long; returns why."""
        link = self._link = HelperLink(lambda report: self._take(link, report))
        ticks = 0
        try:
            await link.start(self._environ, self._interval)
            while ticks < (_TICKS if self._reports else _FIRST_TICKS):
                before = self._reports
                await asyncio.wait({link.ended}, timeout=self._tick)
                if link.ended.done():
                    return "failed", link.ended.result()
                ticks = ticks + 1 if self._reports == before else 0
                self._count_silence("silent", self._no_answer)
            return "silent", self._no_answer
        except OSError as error:
            return "failed", f"cannot start the GPU helper: {error.strerror}"
        finally:
            if self._link is link:
                self._link = None
            await link.close()

    @property
    def _no_answer(self) -> str:
        return f"no answer for {self._patience:g} s"

    def _count_silence(self, loss: _Loss, reason: str) -> None:
        """Counts a tick without a snapshot: a helper that is replaced soon enough is no event."""
        self._silence += 1
        if self._silence >= (_TICKS if self.known is not None else _FIRST_TICKS):
            self._lose(loss, reason)

    def _take(self, link: HelperLink, report: GpuReport) -> None:
        if link is not self._link:
            return
        if report.failure:
            is_absent = report.is_absent and self.known is None
            self._lose("absent" if is_absent else "failed", report.failure)
        if report.fault is not None:
            self._tell_fault(report.fault)
        if report.snapshot is not None:
            self._reports += 1
            self._take_snapshot(report.snapshot, report.look)

    def _take_snapshot(self, snapshot: GpuSnapshot, look: int | None) -> None:
        if self._loss:
            log.info(Event.GPU_DRIVER_ANSWERS if self.known is not None else Event.GPUS_MEASURED)
        snapshot, faults = self._changes.settle(snapshot)
        self.snapshot = self.known = snapshot
        self._silence, self._loss, self._error = 0, "", ""
        for number, waiting in self._looks.items() if look is not None else ():
            if look is not None and number <= look and not waiting.done():
                waiting.set_result(snapshot)
        self._tell(snapshot)
        for fault in faults:
            self._tell_fault(fault)

    def _lose(self, loss: _Loss, reason: str) -> None:
        """Takes the GPUs for unknown, and says so once; the newest reason is kept."""
        self._error = reason
        if self._loss:
            return
        self._loss = loss
        self.snapshot = None
        if loss == "absent":
            log.info(Event.GPUS_NOT_MEASURED, error=reason)
        else:
            event = Event.GPU_DRIVER_SILENT if loss == "silent" else Event.GPU_DRIVER_FAILS
            log.warning(event, error=reason, next_action=_NEXT_ACTION)
        self._tell(None)

    def _tell(self, snapshot: GpuSnapshot | None) -> None:
        for callback in tuple(self._subscribers):
            try:
                callback(snapshot)
            except Exception:
                log.exception(Event.INTERNAL_ERROR)

    def _tell_fault(self, fault: GpuFault) -> None:
        try:
            self.on_fault(fault)
        except Exception:
            log.exception(Event.INTERNAL_ERROR)


def _has_gpus(plan: Plan) -> bool:
    return any(service.gpus for service in plan.services)
