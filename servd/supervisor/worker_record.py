"""What became of the workers of one generation, over all its starts."""

from __future__ import annotations

from dataclasses import dataclass

from servd.supervisor.exits import FailedStartError, WorkerExit


@dataclass(slots=True)
class WorkerRecord:
    """`completed` says that a task ended well, `start_failures` counts workers that ended before
    they were ready, `last_exit` is the latest end that was not asked for.
    """

    completed: bool = False
    start_failures: int = 0
    last_exit: WorkerExit | None = None

    def failure(self) -> FailedStartError:
        """Why the generation is not what it should be."""
        last = self.last_exit
        if last is None:
            return FailedStartError("it did not start")
        return FailedStartError(f"worker {last.worker}: {last.reason}", last)
