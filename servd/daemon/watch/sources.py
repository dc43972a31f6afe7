"""In development: restarts services whose sources change."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator

import structlog

from servd.core.basedir import absolute
from servd.core.events import Event
from servd.daemon.reload.request import ReloadRequest
from servd.daemon.watch.bento_files import (
    BUILD_FILES,
    IGNORE_FILE,
    BentoFiles,
    BuildFileError,
)
from servd.daemon.watch.bento_versions import BentoVersions
from servd.daemon.watch.gitignore import Ignored
from servd.daemon.watch.paths import nearest_folder
from servd.plan.model import Plan, ServicePlan
from servd.supervisor.sources import Sources

_MODULES = (".py", ".so")
_TEMPLATES = (".html", ".jinja", ".jinja2", ".j2")
"""Files other than modules that an app may read at its start."""

_RULES = {*BUILD_FILES, IGNORE_FILE, ".gitignore"}
"""Names of files that say what is watched."""

_BACKSTOP_MS = 5000
_RETRY_SECONDS = 2.0
_QUIET_SECONDS = 0.2
"""Time to finish a file that was begun before its folder was watched."""

_TIME_LAG = 0.02
"""Lag of file times behind the clock."""

_MOST_REMEMBERED = 10_000

log = structlog.get_logger()


class SourceWatch:
    """Watches the folders of all services: of BentoML services what BentoML watches, of others what
    `.gitignore` does not exclude. Which services a change belongs to: see `concerned`.
    """

    def __init__(self, ask: Callable[[ReloadRequest], object], sources: Sources) -> None:
        self._ask = ask
        self._sources = sources
        self._plan = Plan()
        self._config: frozenset[str] = frozenset()
        self._written: tuple[str, ...] = ()
        self._ignored: dict[str, Ignored] = {}
        self._bentos: dict[str, BentoFiles] = {}
        self._versions = BentoVersions()
        self._reacted: dict[str, int] = {}
        self._begun = time.time()
        self._again = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._catching_up: set[asyncio.Task[None]] = set()

    def look_at(self, plan: Plan, config: Iterable[str], logs: Iterable[str] = ()) -> None:
        """Watches the sources of `plan` from now on; files of the `config` do not count, nor do
        those that servd itself writes: its `logs`, and what services have told it to write.
        """
        moved = _roots(plan) != _roots(self._plan)
        self._plan = plan
        self._config = frozenset(os.path.realpath(absolute(file)) for file in config)
        self._written = tuple(os.path.realpath(absolute(path)) for path in _written(plan, logs))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        elif moved:
            self._again.set()

    async def _run(self) -> None:
        from watchfiles import awatch

        known: set[str] = set()
        moved: set[str] = set()
        since = self._begun
        while True:
            self._again.clear()
            folders = await asyncio.to_thread(self._folders)
            begun = _times(folders, known, moved, since)
            known, moved = set(folders), set()
            if not folders:
                await self._again.wait()
                continue
            catching_up = asyncio.create_task(self._catch_up(begun))  # once the watch is in place
            self._catching_up.add(catching_up)
            catching_up.add_done_callback(self._catching_up.discard)
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
                    changed = {path for _, path in changes}
                    if changed:
                        self._react(changed)
                    moved = {path for path in changed if path in known or os.path.isdir(path)}
                    if moved or any(os.path.basename(path) in _RULES for path in changed):
                        break  # watches new and recreated folders too
                    since = time.time() - _TIME_LAG
            except (OSError, RuntimeError) as error:  # a folder is gone, or inotify is exhausted
                log.warning(Event.SOURCES_NOT_WATCHED, error=str(error))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._again.wait(), _RETRY_SECONDS)

    async def _catch_up(self, begun: dict[str, float]) -> None:
        """Reacts to what was put into folders before they were watched, but after a time."""
        await asyncio.sleep(_QUIET_SECONDS)
        found = await asyncio.to_thread(_changed_since, begun)
        self._react({path for path, at in found.items() if self._reacted.get(path) != at})

    def _folders(self) -> list[str]:
        """Reads the rules again, and returns the folders to watch. Runs in a thread."""
        plan = self._plan
        found: list[str] = []
        ignored: dict[str, Ignored] = {}
        bentos: dict[str, BentoFiles] = {}
        for root, is_bento in _roots(plan):
            if is_bento:
                bentos[root] = self._bentos.get(root) or BentoFiles(root)
                try:
                    bentos[root].read()
                except BuildFileError as error:
                    log.warning(Event.SOURCES_NOT_WATCHED, error=str(error))
                found += bentos[root].folders()
            else:
                ignored[root] = Ignored(root)
                found += ignored[root].folders(root)
        self._ignored, self._bentos = ignored, bentos
        found += (nearest_folder(folder) for folder in self._versions.folders(plan))
        return list(dict.fromkeys(found))

    def _react(self, changed: set[str]) -> None:
        services, because = set[str](), set[str]()
        if len(self._reacted) > _MOST_REMEMBERED:
            self._reacted.clear()
        for path in sorted(changed):
            self._reacted[path] = _changed_at(path)
            real = os.path.realpath(path)
            if real in self._config or self._is_written(real):
                continue
            if concerned := self.concerned(real) | self.concerned(path):
                services |= concerned
                because.add(os.path.basename(path))
        if services:
            why = f"{', '.join(sorted(because))} changed"
            self._ask(ReloadRequest(why, roll=frozenset(services), now=True))
        for target in self._versions.news(self._plan):
            self._ask(ReloadRequest(f"{target} changed", now=True))

    def _is_written(self, path: str) -> bool:
        """Whether servd writes the file, or what it is renamed to, or what is in that folder."""
        return any(
            path == own or path.startswith((own + os.sep, own + ".")) for own in self._written
        )

    def concerned(self, path: str) -> set[str]:
        """Returns the services that a changed file belongs to.

        A module belongs to the apps that have loaded it, or that have searched it in vain, and to
        all in whose folder it is that cannot tell: their code ended the process, or has not begun.
        A file belongs to the BentoML services that BentoML would restart, but a module not if it is
        another service's alone.
        """
        exact = self._sources.who_loaded(path) if path.endswith(_MODULES) else set[str]()
        families = {name.partition(".")[0] for name in exact}
        found: set[str] = set()
        for service in self._plan.services:
            if not service.workers or not self._is_below(service, path):
                continue
            if _is_of_bentoml(service):
                others = exact and service.name.partition(".")[0] not in families
                is_concerned = not others or not self._sources.has(service.name)
            elif service.app is not None and path.endswith(_MODULES):
                is_concerned = service.name in exact or not self._sources.has(service.name)
            else:
                is_concerned = True
            if is_concerned:
                found.add(service.name)
        return found

    def _is_below(self, service: ServicePlan, path: str) -> bool:
        """Whether a file is in the service's folder, watched, and of a kind that matters."""
        root = _root_of(service)
        if root is None or not path.startswith(root + os.sep):
            return False
        if _is_of_bentoml(service):
            rules = self._bentos.get(root)
            names_service = _folder_of(service) is not None and os.path.dirname(path) == root
            if names_service and os.path.basename(path) in BUILD_FILES:
                return True
            return rules is not None and rules(path)
        ignored = self._ignored.get(root)
        if ignored is not None and ignored(path):
            return False
        ending = os.path.splitext(path)[1]
        if service.app is not None:
            return ending in _MODULES or ending in _TEMPLATES
        return ending in _endings_of(service)

    async def stop(self) -> None:
        """Stops watching."""
        if self._task is not None:
            self._again.set()
            tasks = {self._task, *self._catching_up}
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


def _times(folders: list[str], known: set[str], moved: set[str], since: float) -> dict[str, float]:
    """Returns the time from which on a file in each of the folders is a change: `since`, but 0 in a
    folder that has come, or come again, into one that was `known`. Upper folders come first.
    """
    found: dict[str, float] = {}
    for folder in folders:
        above = os.path.dirname(folder)
        has_come = folder not in known and (above in known or found.get(above) == 0.0)
        found[folder] = 0.0 if has_come or folder in moved else since
    return found


def _changed_since(begun: dict[str, float]) -> dict[str, int]:
    """Returns what has changed in each folder since a time, and when."""
    found: dict[str, int] = {}
    for folder, since in begun.items():
        with contextlib.suppress(OSError):
            times = {entry.path: _changed_at(entry.path) for entry in os.scandir(folder)}
            found |= {path: at for path, at in times.items() if at >= since * 1e9}
    return found


def _changed_at(path: str) -> int:
    try:
        return os.lstat(path).st_ctime_ns
    except OSError:
        return 0


def _is_of_bentoml(service: ServicePlan) -> bool:
    return bool(service.definition.bento)


def _root_of(service: ServicePlan) -> str | None:
    """Returns the folder whose files are watched, that of the code; None for a Bento in BentoML's
    store, whose files never change, and for what runs elsewhere.
    """
    if service.external is not None:
        return None
    folder = _folder_of(service)
    if folder is None and service.part is not None and service.part.tag:
        return None
    return os.path.realpath(folder or service.directory)


def _folder_of(service: ServicePlan) -> str | None:
    """Returns the folder that `bento` names, if it names one."""
    target = service.definition.bento
    folder = os.path.join(service.directory, os.path.expanduser(target))
    return folder if target and os.path.isdir(folder) else None


def _roots(plan: Plan) -> tuple[tuple[str, bool], ...]:
    """Returns the folders with sources, and whether BentoML's rules apply there."""
    found = ((_root_of(service), _is_of_bentoml(service)) for service in plan.services)
    return tuple(dict.fromkeys((root, bento) for root, bento in found if root is not None))


def _written(plan: Plan, logs: Iterable[str]) -> Iterator[str]:
    """Yields the files, and the folder, that servd writes."""
    yield plan.runtime_dir
    yield from filter(None, logs)
    for service in plan.services:
        if service.definition.log.file:
            yield service.definition.log.file
        yield from (s.address.path for s in service.sockets if s.address.path)


def _endings_of(service: ServicePlan) -> set[str]:
    """Returns the endings of files among a command's arguments: `.js` for `node server.js`."""
    files = [a for a in service.command if os.path.isfile(os.path.join(service.directory, a))]
    return {os.path.splitext(file)[1] for file in files} - {""}
