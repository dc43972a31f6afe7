"""Holds starts of a generation back until there is room on their GPUs."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Collection
from typing import NamedTuple, Protocol

from servd.supervisor.circus.launch import Launch
from servd.supervisor.gpus import GpuWait


class NoRoomError(OSError):
    """There was no room on the GPUs of a worker for `timeouts.startup`."""


class HeldUp(Protocol):
    """Hears that a slot waits, and why; unless `is_new`, only figures of the reason differ."""

    def __call__(self, slot: int, reason: str, *, is_new: bool) -> None: ...


class _Held(NamedTuple):
    """A slot that waits. `since`: the loop's time at which it began to wait for memory."""

    wait: GpuWait
    since: float


class GpuGate:
    """Lets a slot start when the GPUs of its worker have room. `told` gets each new reason."""

    def __init__(self, told: HeldUp) -> None:
        self._told = told
        self._loop = asyncio.get_running_loop()
        self._held: dict[int, _Held] = {}

    def look(self, launch: Launch, slot: int) -> GpuWait | None:
        """Returns why a worker cannot start in a slot now; None if it can."""
        return launch.context.gpus.why_not(launch.plan, launch.gpus_of(slot))

    def opens(self, launch: Launch, slot: int, *, on_probation: bool = False) -> bool:
        """Returns whether a worker may start now. Raises `NoRoomError` when it has waited for
        memory as long as a start may take, and on probation for what does not end by itself.
        """
        wait, before = self.look(launch, slot), self._held.pop(slot, None)
        if wait is None:
            return True
        if wait.is_lasting and on_probation:
            raise NoRoomError(errno.ENODEV, wait.text)
        now = self._loop.time()
        fresh = before is None or not (before.wait.is_timed and wait.is_timed)
        since = now if fresh or before is None else before.since
        startup = launch.plan.startup
        if now >= since + startup:
            reason = f"no room for {startup:g} s (timeouts.startup): {wait.text}"
            raise NoRoomError(errno.ENOSPC, reason)
        self._held[slot] = _Held(wait, since)
        if before is None or before.wait.text != wait.text:
            is_new = before is None or before.wait.key != wait.key
            self._told(slot, wait.text, is_new=is_new)
        return False

    def keep(self, slots: Collection[int]) -> None:
        """Forgets all slots but these."""
        for slot in self._held.keys() - set(slots):
            del self._held[slot]

    def deadlines(self, launch: Launch) -> list[float]:
        """Returns when slots that wait for memory have waited too long."""
        startup = launch.plan.startup
        return [held.since + startup for held in self._held.values() if held.wait.is_timed]

    @property
    def reason(self) -> str:
        """Why a slot waits; "" if none does."""
        return next((f"worker {slot}: {held.wait.text}" for slot, held in self._held.items()), "")
