"""Taking the place of the daemon before."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any

from servd.daemon.predecessor import Predecessor
from servd.daemon.request import Request
from servd.errors import ServdError
from servd.supervisor.rollout import ApplyError
from servd.supervisor.succession import Heritage

if TYPE_CHECKING:
    from servd.daemon.daemon import Daemon

_AT_ONCE = 5.0
"""Seconds in which the daemon before ends when it is told to end at once."""


class Succession:
    """One daemon's way to the place of another. `done` says whether it is there."""

    def __init__(self, daemon: Daemon, predecessor: Predecessor) -> None:
        self.predecessor = predecessor
        self.done = False
        self._daemon = daemon
        predecessor.taken = lambda: [*daemon.pool.bound]
        predecessor.admin = lambda: [item.key for item in daemon.admin.handed()]
        predecessor.taken_over = self._taken_over

    async def take_over(self) -> bool:
        """Starts everything beside the daemon before; True once that has left it to us, False
        where it goes on.
        """
        daemon, left = self._daemon, self.predecessor.handover
        self.predecessor.listen()
        daemon.supervisor.numbers = dict(left.numbers)
        changed = daemon.reloader.loaded.digest != left.digest
        daemon.reloader.generation = left.generation + changed
        heritage = Heritage(left.services, self.predecessor)
        async with daemon.reloader.turn:
            taking = asyncio.ensure_future(daemon.supervisor.take_over(daemon.plan, heritage))
            stopping = asyncio.ensure_future(daemon.engine.stopping.wait())
            await asyncio.wait({taking, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            taking.cancel()
            try:
                await taking
            except asyncio.CancelledError:
                self.predecessor.failed("it was told to stop")
            except ApplyError as error:
                self.predecessor.failed(str(error), error.last_lines)
            except ServdError as error:
                self.predecessor.failed(str(error))
        return self.done

    def _taken_over(self, message: dict[str, Any]) -> None:
        """From now on it is this daemon that runs."""
        self.done = True
        self._daemon.folder.own()
        self._daemon.admin.own()
        self._daemon.systemd.mute = False
        if message.get("reload"):
            self._daemon.reload(Request("asked for while servd was replaced"))

    @property
    def draining(self) -> int | None:
        """The pid of the daemon before, while it drains."""
        drains = self.done and not self.predecessor.gone.is_set()
        return self.predecessor.handover.pid if drains else None

    async def see_off(self, seconds: float) -> None:
        """Returns once the daemon before has ended; after so many seconds it is told to end at
        once.
        """
        if not self.done:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.predecessor.gone.wait(), seconds)
        self.hurry()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.predecessor.gone.wait(), _AT_ONCE)

    def hurry(self) -> None:
        """Tells the daemon before to end at once: it has been draining since it was replaced."""
        if (pid := self.draining) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
