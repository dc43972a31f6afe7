"""In development: restarts services whose sources change."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterable

import structlog

from servd.core.basedir import absolute
from servd.core.events import Event
from servd.daemon.reload.request import ReloadRequest
from servd.daemon.watch.gitignore import Ignored
from servd.plan.model import Plan, ServicePlan
from servd.supervisor.sources import Sources

_TEMPLATES = (".html", ".jinja", ".jinja2", ".j2")
"""Files other than modules that an app may read at its start."""

_BACKSTOP_MS = 5000
_RETRY_SECONDS = 2.0
_CATCH_UP_SECONDS = 0.2
"""Time after which a new watch is in place."""

log = structlog.get_logger()


class SourceWatch:
    """Watches the folders of all services, except what `.gitignore` excludes."""

    def __init__(self, ask: Callable[[ReloadRequest], object], sources: Sources) -> None:
        self._ask = ask
        self._sources = sources
        self._plan = Plan()
        self._config: frozenset[str] = frozenset()
        self._ignored: dict[str, Ignored] = {}
        self._begun = time.time()
        self._again = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def look_at(self, plan: Plan, config: Iterable[str]) -> None:
        """Watches the sources of `plan` from now on; files of the `config` do not count."""
        moved = _directories(plan) != _directories(self._plan)
        self._plan = plan
        self._config = frozenset(os.path.realpath(absolute(file)) for file in config)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        elif moved:
            self._again.set()

    async def _run(self) -> None:
        from watchfiles import awatch

        known: set[str] = set()
        while True:
            self._again.clear()
            folders = await asyncio.to_thread(self._folders)
            fresh, since = set(folders) - known, 0.0 if known else self._begun
            known = set(folders)
            if not folders:
                await self._again.wait()
                continue
            loop = asyncio.get_running_loop()
            catching_up = loop.call_later(_CATCH_UP_SECONDS, self._react_to_all, fresh, since)
            try:
                async for changes in awatch(
                    *folders,
                    stop_event=self._again,
                    rust_timeout=_BACKSTOP_MS,
                    yield_on_timeout=True,
                    recursive=False,
                    watch_filter=None,
                    ignore_permission_denied=True,
                ):
                    changed = {os.path.realpath(path) for _, path in changes}
                    if changed:
                        self._react(changed)
                    moved = {path for path in changed if path in known or os.path.isdir(path)}
                    if moved:
                        known -= moved  # watches new and recreated folders too
                        break
            except (OSError, RuntimeError) as error:  # a folder is gone, or inotify is exhausted
                log.warning(Event.SOURCES_NOT_WATCHED, error=str(error))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._again.wait(), _RETRY_SECONDS)
            except BaseException:
                catching_up.cancel()
                raise

    def _react_to_all(self, folders: set[str], since: float) -> None:
        """Reacts to files put into `folders` before they were watched, but after `since`."""
        found: set[str] = set()
        for folder in folders:
            with contextlib.suppress(OSError):
                found |= {e.path for e in os.scandir(folder) if e.stat().st_ctime >= since}
        self._react(found)

    def _folders(self) -> list[str]:
        self._ignored = {folder: Ignored(folder) for folder in _directories(self._plan)}
        found = (ignored.folders(folder) for folder, ignored in self._ignored.items())
        return list(dict.fromkeys(itertools.chain.from_iterable(found)))

    def _react(self, changed: set[str]) -> None:
        services, because = set[str](), set[str]()
        for path in sorted(changed - self._config):
            if concerned := self.concerned(path):
                services |= concerned
                because.add(os.path.basename(path))
        if services:
            why = f"{', '.join(sorted(because))} changed"
            self._ask(ReloadRequest(why, roll=frozenset(services)))

    def concerned(self, path: str) -> set[str]:
        """Returns the services that a changed file belongs to.

        A module belongs to the services that have loaded it. One that none has loaded may be
        imported later, or be missing from a broken import: it belongs to every app in whose folder
        it is.
        """
        here = [s for s in self._plan.services if self._is_source(s, path)]
        exact = self._sources.who_loaded(path)
        known = {service.name for service in here if service.name in exact}
        return known or {service.name for service in here}

    def _is_source(self, service: ServicePlan, path: str) -> bool:
        folder = os.path.realpath(service.directory)
        if not service.workers or not path.startswith(folder + os.sep):
            return False
        ignored = self._ignored.get(folder)
        if ignored is not None and ignored(path):
            return False
        ending = os.path.splitext(path)[1]
        if service.app is not None:
            return ending == ".py" or ending in _TEMPLATES
        return ending in _endings_of(service)

    async def stop(self) -> None:
        """Stops watching."""
        if self._task is not None:
            self._again.set()
            self._task.cancel()
            await asyncio.wait({self._task})


def _directories(plan: Plan) -> tuple[str, ...]:
    return tuple(dict.fromkeys(os.path.realpath(s.directory) for s in plan.services))


def _endings_of(service: ServicePlan) -> set[str]:
    """Returns the endings of files among a command's arguments: `.js` for `node server.js`."""
    files = [a for a in service.command if os.path.isfile(os.path.join(service.directory, a))]
    return {os.path.splitext(file)[1] for file in files} - {""}
