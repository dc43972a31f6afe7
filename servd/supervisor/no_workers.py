"""The workers of a generation that is only bound: there are none yet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from servd.plan.model import ServicePlan
from servd.supervisor.circus.process import WorkerProcess
from servd.supervisor.worker_record import WorkerRecord


class NoWorkers:
    """Stands for a `WorkerGroup` before the first worker: asked for anything, it does nothing."""

    has_begun = False
    accepts = False
    growing = 0
    processes: Sequence[WorkerProcess] = ()
    leaving: Sequence[WorkerProcess] = ()
    ready_count = 0
    unwell = ""
    pausing = False
    given_up = False
    has_ended = False

    def __init__(self, plan: ServicePlan, record: WorkerRecord) -> None:
        self.plan = plan
        self.record = record

    @property
    def wanted(self) -> int:
        """Workers that there should be."""
        return self.plan.workers

    @property
    def is_ready(self) -> bool:
        """Whether everything is there that should be: without workers, only a completed task is."""
        return self.plan.is_task and (self.record.completed or not self.plan.workers)

    async def until_ready(self, slots: Iterable[int] | None = None) -> None:
        """Raises `FailedStartError`: nothing was started."""
        raise self.record.failure()

    async def accept(self) -> None:
        """There is nothing that could accept."""

    def accept_later(self) -> None:
        """There is nothing that could accept."""

    def end_probation(self) -> None:
        """There is nothing on probation."""

    async def adjust(self, plan: ServicePlan) -> None:
        """What is started later is started with `plan`."""
        self.plan = plan

    def resize(self, workers: int) -> None:
        """The plan alone says how many there should be."""

    async def fill(self, workers: int) -> None:
        """There is nothing to move."""

    async def end_surplus(self) -> None:
        """There is nothing to end."""

    def retry(self) -> None:
        """There is nothing to try again."""

    def failed_lately(self, times: int) -> bool:
        """Nothing has failed."""
        return False

    async def stop_accepting(self, reason: str) -> None:
        """Nothing accepts."""

    async def wait_ended(self) -> None:
        """Nothing runs."""

    async def abort_drains(self) -> None:
        """Nothing drains."""

    def kill_unready(self) -> None:
        """Nothing runs."""

    def kill(self) -> None:
        """Nothing runs."""
