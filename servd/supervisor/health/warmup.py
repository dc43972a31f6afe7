"""Warms a worker up: sends it requests before it accepts others."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Any

from servd.core.events import Event
from servd.core.processes import is_ending
from servd.plan.model import WarmupPlan
from servd.supervisor.circus.process import WorkerProcess
from servd.supervisor.health.exchange import Connection, closing, exchange
from servd.supervisor.health.probe import connect_privately, connect_to, reason_of
from servd.supervisor.health.readiness import NotReadyError
from servd.supervisor.io.channel import UnansweredError

_MOST_BYTES = 64 * 2**20
"""What has sent so much of an answer is warm."""


async def warm_up(process: WorkerProcess, log: Any) -> None:
    """Warms up a worker that has got ready, as it was started to be, and logs it. Raises
    `NotReadyError`, which says what it did instead of answering well.
    """
    plan = process.launch.plan.warmup
    if plan is None or not process.is_alive():
        return
    loop = asyncio.get_running_loop()
    began = loop.time()
    if await _is_warm(process, plan):
        about = {"worker": process.slot, "pid": process.pid}
        seconds = round(loop.time() - began, 3)
        log.info(Event.WORKER_WARM, **about, requests=plan.times, seconds=seconds)


async def _is_warm(process: WorkerProcess, plan: WarmupPlan) -> bool:
    """Returns whether it has answered every request well; False: it has ended."""
    asking = asyncio.ensure_future(_why_not_warm(process, plan))
    try:
        waited: set[asyncio.Future[Any]] = {asking, process.exited}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if process.exited.done():
            return False
        if not (reason := asking.result()):
            return True
    finally:
        asking.cancel()
    if is_ending(process.pid):
        await asyncio.wait({process.exited})
        return False  # its own end says why
    raise NotReadyError(reason)


async def _why_not_warm(process: WorkerProcess, plan: WarmupPlan) -> str:
    number, reason = 0, ""
    request = plan.request.encoded(plan.host)
    limit = asyncio.timeout(plan.timeout)
    with contextlib.suppress(TimeoutError):
        async with limit:
            while number < plan.times and not reason:
                number += 1
                reason = await _why_not_well(process, plan, request)
    if limit.expired():
        took = "was not answered in time: all of the warm-up may take"
        reason = f"{took} {plan.timeout:g} s (warmup.timeout)"
    which = f" {number} of {plan.times}" if plan.times > 1 else ""
    return f"warm-up request{which}: {plan.request.shown} {reason}" if reason else ""


async def _why_not_well(process: WorkerProcess, plan: WarmupPlan, request: bytes) -> str:
    """Sends one request; returns what is wrong with its answer, "" for nothing."""
    try:
        async with closing(_connect(process, plan)) as connection:
            answer = await exchange(connection, request, _MOST_BYTES)
    except OSError as error:  # the limit cancels: a TimeoutError here is one of the connection
        return f"failed: {reason_of(error)}"
    except (UnansweredError, ValueError) as error:
        return f"failed: {error}"
    if 200 <= answer.status < 300:
        return ""
    said = f": {answer.beginning}" if answer.beginning else ""
    return f"returned {answer.status}{said}"


def _connect(process: WorkerProcess, plan: WarmupPlan) -> Awaitable[Connection]:
    return connect_to(plan.address) if plan.address is not None else connect_privately(process)
