"""What happened to the workers of one generation, over all its starts."""

from __future__ import annotations

from dataclasses import dataclass

from servd.supervisor.exits import FailedStartError, WorkerExit


@dataclass(slots=True)
class WorkerRecord:
    """`completed`: a task succeeded. `start_failures`: workers that exited before they were ready.
    `app_failed`: the app could not be imported, or failed at its startup.
    `last_exit`: the latest unexpected exit.
    """

    completed: bool = False
    start_failures: int = 0
    app_failed: bool = False
    last_exit: WorkerExit | None = None

    def failure(self) -> FailedStartError:
        """The reason why the generation did not start, as an error."""
        last = self.last_exit
        if last is None:
            return FailedStartError("did not start")
        return FailedStartError(f"worker {last.worker}: {last.reason}", last)
