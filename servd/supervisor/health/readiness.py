"""Waits for worker readiness: READY=1, a successful probe, or surviving the start (commands)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection
from typing import Any

from servd.core.processes import descendants_of
from servd.host.listening import listening
from servd.plan.model import HealthPlan, ReadyPlan, ServicePlan
from servd.supervisor.circus.process import WorkerProcess
from servd.supervisor.health.probe import connect_to, why_unwell
from servd.supervisor.health.start_limit import GpuMemory, StartLimit

_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 0.5

_REST_SECONDS = 2.0
"""Time for a program that listens to bind the rest of what it had."""

_DAEMON_DELAY_SECONDS = 1.0
"""No worker is blamed when the daemon itself is later than this."""


def was_held_up(late: float, seconds: float) -> bool:
    """Whether the daemon, `late` after a wait of `seconds`, was itself held up."""
    return late > min(_DAEMON_DELAY_SECONDS, seconds / 2)


class NotReadyError(Exception):
    """A worker was not ready in time; the message says what was awaited."""


async def ready_or_over(
    process: WorkerProcess, plan: ServicePlan, gpu_memory: GpuMemory | None = None
) -> None:
    """Returns when the worker is ready, or has ended. Raises `NotReadyError` when it is neither in
    time (`StartLimit`), or when probes fail for longer than `health.start_failures` allows.
    """
    loop = asyncio.get_running_loop()
    limit = StartLimit(process, plan, gpu_memory)
    while True:
        try:
            async with asyncio.timeout_at(limit.due) as timeout:
                with limit.kept_in(timeout):
                    await _says_or_shows(process, plan.ready)
                    if plan.app is not None and plan.health is not None and process.is_alive():
                        await _is_well(process, plan.health, plan.ready.patience)
            break
        except TimeoutError:
            if was_held_up(loop.time() - limit.due, plan.startup):
                limit.begin()  # maybe the worker was too: its time starts again
                continue
            raise NotReadyError(limit.reason) from None
    process.unwell = ""


async def _says_or_shows(process: WorkerProcess, plan: ReadyPlan) -> None:
    over: set[asyncio.Future[Any]] = {process.exited}
    if plan.mode == "exit":
        await asyncio.wait(over)
        return
    if plan.mode == "started":
        # only known: the program was run, and did not end, unless it says more
        over.add(process.notified_ready)
        await asyncio.wait({*over, process.channel_closed}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait(over, timeout=plan.proof, return_when=asyncio.FIRST_COMPLETED)
        await _until_it_listens(process, over)
        return
    asked: set[asyncio.Future[Any]] = set()
    if plan.mode in ("port", "http"):
        asked = {asyncio.ensure_future(_asked_until_ready(process, plan))}
    waited = {*over, process.notified_ready, *asked}
    try:
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        for task in asked:
            if task.done():
                task.result()
    finally:
        for task in asked:
            task.cancel()


async def _until_it_listens(process: WorkerProcess, over: Collection[asyncio.Future[Any]]) -> None:
    """Waits for a program that was found to bind addresses: until it listens on as many again, or
    on some for `_REST_SECONDS` (it may bind fewer now), or until its start has nearly taken too
    long (it may bind none any more).
    """
    plan = process.launch.plan
    if not plan.held or plan.definition.ready != "auto":
        return
    loop = asyncio.get_running_loop()
    wanted = max(1, len(plan.held) // max(1, plan.workers))
    ours = [os.fstat(sock.fileno()).st_ino for _, sock in process.launch.sockets]
    end = loop.time() + max(0.0, plan.startup - process.lived - _REST_SECONDS)
    listens = False
    pause = _FIRST_PAUSE_SECONDS
    while loop.time() < end and not any(future.done() for future in over):
        found = await asyncio.to_thread(_addresses, process.pid, ours)
        if len(found) >= wanted:
            return
        if found and not listens:
            listens, end = True, min(end, loop.time() + _REST_SECONDS)
        await asyncio.wait(over, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
        pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)


def _addresses(pid: int, but: Collection[int]) -> set[str]:
    return listening(list(descendants_of([pid])), but)


async def _asked_until_ready(process: WorkerProcess, plan: ReadyPlan) -> None:
    """Returns once the plan's port accepts, or its path answers 2xx or 3xx."""
    pause = _FIRST_PAUSE_SECONDS
    while plan.mode == "port":
        if await _accepts(plan):
            return
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)
    health = plan.health
    if health is None:
        assert plan.address is not None
        health = HealthPlan(plan.address, plan.path, plan.host, 0.0, plan.timeout, 0)
    await _is_well(process, health, plan.patience)


async def _accepts(plan: ReadyPlan) -> bool:
    assert plan.address is not None
    try:
        async with asyncio.timeout(plan.timeout):
            _, writer = await connect_to(plan.address)
            writer.close()
    except (OSError, ValueError, TimeoutError):
        return False
    return True


async def _is_well(process: WorkerProcess, health: HealthPlan, patience: float | None) -> None:
    """Probes with growing pauses until one succeeds or the worker has ended. Raises `NotReadyError`
    after `patience` seconds.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + patience if patience is not None else None
    pause = _FIRST_PAUSE_SECONDS
    while not process.exited.done():
        try:
            process.unwell = await why_unwell(process, health)
        except OSError as error:  # the daemon's: it asks again until the time is over
            process.unwell = f"the probe could not run: {error.strerror}"
        if not process.unwell:
            return
        if end is not None and loop.time() >= end:
            raise NotReadyError(f"was not healthy within {patience:g} s: {process.unwell}")
        await asyncio.wait({process.exited}, timeout=pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)
