"""What running workers are told: changes that they can take over, and to hurry up."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import Any

from servd.plan.model import ServicePlan
from servd.supervisor.circus.process import WorkerProcess
from servd.supervisor.io.channel import UnansweredError

CUT_GRACE = 3.0
"""Seconds for a worker whose drain is cut short, before SIGKILL."""


async def tell(process: WorkerProcess, before: ServicePlan, after: ServicePlan) -> None:
    """Tells a worker in what `after` differs from `before`. Raises `UnansweredError`."""
    if after.app is None or before.app is None:
        return
    adjusted = _adjustable(after)
    if _adjustable(before) != adjusted:
        await process.ask("adjust", **adjusted)
    if before.tls != after.tls and after.tls is not None:
        await process.ask("tls", tls=after.tls.as_dict())


def _adjustable(plan: ServicePlan) -> dict[str, Any]:
    """What a running worker of servd's own can be told anew."""
    assert plan.app is not None
    return {
        "log_level": plan.app.log.level,
        "health_path": plan.app.health_path,
        "watchdog": plan.watchdog,
    }


async def cut(process: WorkerProcess) -> None:
    """Ends a worker's drain before its time; returns when it has ended."""
    if process.launch.plan.app is not None:
        with contextlib.suppress(UnansweredError):
            await process.ask("hurry")
    try:
        await asyncio.wait_for(asyncio.shield(process.exited), CUT_GRACE)
    except TimeoutError:
        process.signal_group(signal.SIGKILL)
        await process.exited
