"""Descriptions of how workers exit."""

from __future__ import annotations

import mmap
import os
import signal
from collections.abc import Mapping

from servd.core.errors import StartError
from servd.core.quick_dataclass import dataclass
from servd.plan.model import ServicePlan
from servd.supervisor.circus.process import WorkerProcess
from servd.supervisor.exit_text import describe


@dataclass(frozen=True, slots=True)
class WorkerExit:
    """How a worker exited."""

    worker: int
    pid: int
    status: int
    reason: str
    last_lines: tuple[str, ...] = ()


class FailedStartError(StartError):
    """A generation did not start. `last` is how its worker exited, if one did."""

    def __init__(self, message: str, last: WorkerExit | None = None) -> None:
        super().__init__(message)
        self.last = last


def exit_of(process: WorkerProcess, status: int, environ: Mapping[str, str]) -> WorkerExit:
    """Describes the unexpected exit of a worker. `environ` is the daemon's."""
    reason = process.report.failed or describe(status)
    if status == -signal.SIGBUS and _is_full(process.launch.context.notify_folder):
        reason += ": the disk of the runtime folder is full"
    missing = process.report.missing_variable
    if missing is not None and missing in environ:
        reason += (
            f" ({missing} is set for the daemon but not passed to the service:"
            f' add env_passthrough = ["{missing}"])'
        )
    proven = process.was_ready and process.lived >= process.launch.plan.restart.reset_after
    last_lines = () if proven else tuple(process.outputs.last.text())
    return WorkerExit(process.slot, process.pid, status, reason, last_lines)


def not_spawned(plan: ServicePlan, slot: int, error: OSError) -> WorkerExit:
    """Describes a worker that the system could not start."""
    reason = f"could not be started: {error.strerror or error}"
    if error.filename:
        reason += f" ({os.fsdecode(error.filename)})"
    account = plan.identity.account
    if error.filename and isinstance(error, PermissionError) and account is not None:
        reason += f": the user {account.name} must be able to read and execute it"
    return WorkerExit(slot, 0, -1, reason)


def _is_full(folder: str) -> bool:
    """Whether less than a page is free: a process that writes to a mapped file gets a SIGBUS."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < mmap.PAGESIZE


def restart_reason(process: WorkerProcess, status: int) -> str:
    """Returns the reason of a restart for the metrics."""
    if process.kill_reason:
        return process.kill_reason
    if not process.was_ready:
        return "startup"
    return "signal" if status < 0 else "exit"
