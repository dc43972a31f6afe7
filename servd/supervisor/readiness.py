"""When a worker is ready: it said READY=1, a probe succeeds, or as much as can be known."""

from __future__ import annotations

import asyncio
from typing import Any

from servd.plan.model import ReadyPlan
from servd.supervisor.process import WorkerProcess

_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 0.5

PROOF_SECONDS = 0.25
"""How long a program that tells nothing of its readiness has to live to pass for started."""


async def ready_or_over(process: WorkerProcess, plan: ReadyPlan, *, on_trial: bool) -> None:
    """Returns when the worker says READY=1, a probe succeeds, or it has ended."""
    over: set[asyncio.Future[Any]] = {process.exited}
    if plan.mode == "exit":
        await asyncio.wait(over)
        return
    if plan.mode == "started":
        # all that can be known is that the program was run, and on trial, that it did not end
        await asyncio.wait({*over, process.left_alone}, return_when=asyncio.FIRST_COMPLETED)
        if on_trial:
            await asyncio.wait(over, timeout=PROOF_SECONDS)
        return
    asked: set[asyncio.Future[Any]] = set()
    if plan.mode in ("port", "http"):
        asked = {asyncio.ensure_future(probe_until_ready(plan))}
    waited = {*over, process.ready, *asked}
    try:
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in asked:
            task.cancel()


async def probe_until_ready(plan: ReadyPlan) -> None:
    """Returns once the plan's port accepts, or its path answers 2xx or 3xx.

    Programs that say nothing can only be asked: with pauses that grow from 20 ms to half a second.
    Whoever waits sets the deadline.
    """
    pause = _FIRST_PAUSE
    while not await probe(plan):
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE)


async def probe(plan: ReadyPlan) -> bool:
    """Whether the plan's address accepts (mode "port") or answers well (mode "http") now."""
    try:
        async with asyncio.timeout(plan.timeout):
            reader, writer = await _connect(plan)
            try:
                return plan.mode == "port" or await _answers_well(plan, reader, writer)
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
        return False


async def _connect(plan: ReadyPlan) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    address = plan.address
    assert address is not None
    if address.kind == "unix":
        return await asyncio.open_unix_connection(address.path)
    return await asyncio.open_connection(address.from_here.host, address.port)


async def _answers_well(
    plan: ReadyPlan, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    request = f"GET {plan.path} HTTP/1.1\r\nHost: {plan.host}\r\nConnection: close\r\n\r\n"
    writer.write(request.encode())
    status = (await reader.readline()).split(b" ")
    return len(status) > 1 and status[0].startswith(b"HTTP/") and status[1][:1] in (b"2", b"3")
