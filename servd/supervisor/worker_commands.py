"""Commands sent to running workers: update settings, end the drain early."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import Any

from servd.plan.model import ServicePlan
from servd.supervisor.circus.process import WorkerProcess
from servd.supervisor.io.channel import UnansweredError
from servd.wire.graces import ABORT_SECONDS, FORCED_STOP_SECONDS
from servd.wire.names import SHOW_STACKS


async def update(process: WorkerProcess, before: ServicePlan, after: ServicePlan) -> None:
    """Sends a worker the difference from `before` to `after`. Raises `UnansweredError`."""
    if after.app is None or before.app is None:
        return
    settings = _live_settings(after)
    if _live_settings(before) != settings:
        await process.ask("adjust", **settings)
    if before.tls != after.tls and after.tls is not None:
        await process.ask("tls", tls=after.tls.as_dict())


def _live_settings(plan: ServicePlan) -> dict[str, Any]:
    assert plan.app is not None
    return {
        "log_level": plan.app.log.level,
        "health_path": plan.app.health_path,
        "watchdog": plan.watchdog,
        "oom_limit": plan.app.oom_limit,
    }


async def show_stacks(process: WorkerProcess) -> None:
    """Has a worker log where it is. One that cannot (C code holds the interpreter) is aborted: then
    faulthandler does it.
    """
    try:
        async with asyncio.timeout(ABORT_SECONDS):
            await process.ask(SHOW_STACKS)
    except (TimeoutError, UnansweredError):
        process.signal_self(signal.SIGABRT)
        await asyncio.wait({process.exited}, timeout=ABORT_SECONDS)


async def abort_drain(process: WorkerProcess) -> None:
    """Ends a worker's drain early; returns when it has ended."""
    if process.launch.plan.app is not None:
        with contextlib.suppress(UnansweredError):
            await process.ask("hurry")
    try:
        await asyncio.wait_for(asyncio.shield(process.exited), FORCED_STOP_SECONDS)
    except TimeoutError:
        process.signal_group(signal.SIGKILL)
        await process.exited
