"""Runs a program next to a worker, in the same environment: to probe or to stop it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING

from servd.host.identity import running_as
from servd.wire.names import MAIN_PID, WORKER

if TYPE_CHECKING:
    from servd.supervisor.circus.process import WorkerProcess


async def run_beside(process: WorkerProcess, command: Sequence[str], seconds: float) -> int:
    """Runs `command` with the user, folder and environment of the worker, whose pid it finds in
    MAINPID; returns its exit status. Raises OSError, and TimeoutError after `seconds`.
    """
    plan = process.launch.plan
    program = await asyncio.create_subprocess_exec(
        *(word.replace("{worker}", str(process.slot)) for word in command),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=plan.directory,
        env={**plan.environment, WORKER: str(process.slot), MAIN_PID: str(process.pid)},
        start_new_session=True,
        **running_as(plan.identity.account, plan.identity.gid),
    )
    try:
        async with asyncio.timeout(seconds):
            return await program.wait()
    except BaseException:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(program.pid, signal.SIGKILL)  # with its children
        raise
