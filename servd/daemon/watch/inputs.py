"""Asks for a reload when an input of a service has changed: once it is complete."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Mapping

from servd.daemon.reload.request import ReloadRequest
from servd.daemon.watch.config_files import Trouble
from servd.daemon.watch.folder_events import FolderEvents
from servd.daemon.watch.folders import folders_below
from servd.daemon.watch.paths import folders_of, nearest_folder
from servd.host.inputs import states_of
from servd.plan.model import Plan

_QUIET_SECONDS = 2.0
"""Time without a change after which an input is complete: a copy of weights takes minutes."""

_BACKSTOP_SECONDS = 60.0 if sys.platform == "linux" else 5.0
"""Interval of looks without a report of the kernel: network file systems send none."""

_RETRY_SECONDS = 2.0


class InputWatch:
    """Watches the inputs of what runs. `ask` is called with the reload that a change calls for.
    `newer` are the inputs that were seen in another state than the one in force.
    """

    def __init__(self, ask: Callable[[ReloadRequest], object]) -> None:
        self._ask = ask
        self.newer: frozenset[str] = frozenset()
        self._wanted = False
        self._known: Mapping[str, str] = {}
        self._asked: Mapping[str, str] = {}
        self._changed = asyncio.Event()
        self._again = asyncio.Event()
        self._trouble = Trouble()
        self._task: asyncio.Task[None] | None = None

    def look_at(self, plan: Plan, *, wanted: bool) -> None:
        """Watches the inputs of `plan`, which are in force. Where reloads are not `wanted`, it only
        looks at them, now and then.
        """
        before = (self._wanted, self._known)
        self._wanted = wanted
        self._known = {path: state for s in plan.services for path, state in s.inputs}
        self.newer &= self._known.keys()
        if self._known and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        elif before != (self._wanted, self._known):
            self._again.set()
        self._changed.set()  # what a reload could not bring into force is noticed

    async def _run(self) -> None:
        while True:
            self._again.clear()
            try:
                folders = await self._folders()
                with contextlib.closing(FolderEvents(folders, self._changed.set)):
                    await self._follow(folders)
            except OSError as error:  # a folder is gone, or inotify is exhausted
                self._trouble.say(error)
                await asyncio.sleep(_RETRY_SECONDS)

    async def _folders(self) -> list[str]:
        """Returns the folders to watch; a tree of weights may be on a slow file system."""
        return await asyncio.to_thread(_folders, self._known) if self._wanted else []

    async def _follow(self, folders: list[str]) -> None:
        """Returns when other folders are to be watched."""
        while not self._again.is_set() and folders == await self._folders():
            self._changed.clear()
            await self._look()
            events = {asyncio.ensure_future(e.wait()) for e in (self._changed, self._again)}
            try:
                await asyncio.wait(
                    events, timeout=_BACKSTOP_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                for event in events:
                    event.cancel()

    async def _look(self) -> None:
        """Asks for a reload if a state is another one, and stays so for a moment."""
        states = await asyncio.to_thread(states_of, self._known)
        self._note(states)
        while self._wanted and self._differ(states):
            await asyncio.sleep(_QUIET_SECONDS)
            now = await asyncio.to_thread(states_of, self._known)
            if now == states:
                changed = sorted(self._differ(states))
                self._asked = states
                names = ", ".join(os.path.basename(path) or path for path in changed)
                self._ask(ReloadRequest(f"{names} changed"))
                return
            states = now
            self._note(states)

    def _note(self, states: Mapping[str, str]) -> None:
        self.newer = frozenset(p for p, now in states.items() if now != self._known.get(p, now))

    def _differ(self, states: Mapping[str, str]) -> list[str]:
        """Returns the inputs that differ from those in force. Each state is asked for once: a
        reload may have failed.
        """
        return [
            path
            for path, state in states.items()
            if state != self._known.get(path) and state != self._asked.get(path)
        ]

    async def stop(self) -> None:
        """Stops watching."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})


def _folders(paths: Mapping[str, str]) -> list[str]:
    """Returns the folders in which a change of an input shows."""
    found: dict[str, None] = {}
    for path in paths:
        found |= dict.fromkeys(nearest_folder(folder) for folder in sorted(folders_of(path)))
        if os.path.isdir(path):
            found |= dict.fromkeys(folders_below(os.path.realpath(path), lambda _: False))
    return list(found)
