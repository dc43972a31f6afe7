"""The workers of a generation that has not started any yet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from servd.plan.model import ServicePlan
from servd.supervisor.circus.process import WorkerProcess
from servd.supervisor.worker_record import WorkerRecord


class NoWorkers:
    """Stands for a `WorkerGroup` before the first worker: empty, and its commands do nothing."""

    has_begun = has_started = accepts = serves = False
    pausing = given_up = exited = has_ended = False
    growing = ready_count = 0
    unwell = ""
    processes: Sequence[WorkerProcess] = ()
    leaving: Sequence[WorkerProcess] = ()

    def __init__(self, plan: ServicePlan, record: WorkerRecord) -> None:
        self.plan = plan
        self.record = record

    @property
    def wanted(self) -> int:
        """The wanted number of workers."""
        return self.plan.workers

    @property
    def is_ready(self) -> bool:
        """Whether a task is completed, or none is wanted."""
        return self.plan.is_task and (self.record.completed or not self.plan.workers)

    async def until_ready(self, slots: Iterable[int] | None = None) -> None:
        """Raises `FailedStartError`: nothing was started."""
        raise self.record.failure()

    def learn(self, plan: ServicePlan) -> None:
        """Workers are started by `plan` later."""
        self.plan = plan

    async def adjust(self, plan: ServicePlan) -> None:
        """Workers are started by `plan` later."""
        self.plan = plan

    def failed_lately(self, times: int) -> bool:
        """False: there were no deaths."""
        return False

    def _do_nothing(self, *_: object) -> None: ...
    async def _wait_for_nothing(self, *_: object) -> None: ...

    accept_later = end_probation = resize = retry = kill_unready = kill = _do_nothing
    accept = fill = end_surplus = stop_accepting = wait_ended = abort_drains = _wait_for_nothing
