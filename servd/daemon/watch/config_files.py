"""Asks for a reload when files on disk change, once they have been quiet for a moment."""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import math
import sys
import time
from collections.abc import Callable

import structlog

from servd.config.load import Loaded
from servd.core.events import Event
from servd.daemon.reload.request import ReloadRequest
from servd.daemon.watch.debounce import ClockTimer, Debounce, TimerClock
from servd.daemon.watch.folder_events import FolderEvents
from servd.daemon.watch.paths import WatchList, of_certificates, of_config

_BACKSTOP_SECONDS = 10.0 if sys.platform == "linux" else 1.0
"""Polling interval without kernel events: network file systems send none, nor does a folder that
was replaced, nor do other systems than Linux."""

_RETRY_SECONDS = 2.0

_REPORT_SECONDS = 60.0
"""Interval in which a lasting failure is reported again."""

log = structlog.get_logger()


class Trouble:
    """Logs why files cannot be watched: immediately, then at intervals."""

    def __init__(self) -> None:
        self._said: dict[str, float] = {}

    def say(self, error: Exception) -> None:
        """Logs `error`, unless it was logged recently."""
        now = time.monotonic()
        if now - self._said.get(str(error), -math.inf) >= _REPORT_SECONDS:
            self._said = {str(error): now}
            log.warning(
                Event.FILES_NOT_WATCHED,
                error=str(error),
                next_action=f"retrying every {_RETRY_SECONDS:g} s",
            )


class FileWatch:
    """Watches the files of the configuration that was read last, and certificates in use."""

    def __init__(
        self, ask: Callable[[ReloadRequest], object], clock: TimerClock | None = None
    ) -> None:
        self._ask = ask
        self._config = WatchList()
        self._certificates = WatchList()
        self._seen: dict[str, bytes] = {}
        self._quiet = 0.3
        self._watching: frozenset[str] | None = None
        self._again = asyncio.Event()
        self._clock: TimerClock = clock or asyncio.get_running_loop()
        self._debounce = Debounce(self.check, self._clock)
        self._looking: ClockTimer | None = None
        self._trouble = Trouble()
        self._task: asyncio.Task[None] | None = None

    def has_read(self, loaded: Loaded) -> None:
        """Records the content of the first configuration's files, before they are watched."""
        self._choose(loaded, loaded)
        self.about_to_read()

    def about_to_read(self) -> None:
        """Records the files' content now: a reader may miss later changes."""
        contents = self._contents()
        if contents is not None:
            self._seen = contents

    def look_at(self, read: Loaded, running: Loaded) -> None:
        """Watches the files of `read`, valid or not, and the certificates of `running`, whose
        settings say whether and how to watch.
        """
        self._choose(read, running)
        contents = self._contents()
        if contents is not None:
            # what only a pattern finds has come since the files were read
            read_now = self._config.files | self._certificates.files
            known = {path: content for path, content in contents.items() if path in read_now}
            self._seen = {**known, **self._seen}
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        elif self._wanted != self._watching:
            self._again.set()
        if contents is not None and contents != self._seen:
            self._debounce.trigger(self._quiet)

    def _choose(self, read: Loaded, running: Loaded) -> None:
        options = running.config.daemon
        self._config = of_config(read) if options.watch else WatchList()
        self._certificates = of_certificates(running)
        self._quiet = max(0.01, options.watch_debounce)

    @property
    def _wanted(self) -> frozenset[str]:
        return self._config.folders | self._certificates.folders

    def _contents(self) -> dict[str, bytes] | None:
        """Returns None, and looks again later, while files cannot be read for lack of resources."""
        try:
            return self._config.contents() | self._certificates.contents()
        except OSError:
            self._looking = self._looking or self._clock.call_at(
                self._clock.time() + _RETRY_SECONDS, self._look
            )
            return None

    async def _run(self) -> None:
        while True:
            self._again.clear()
            self._watching = self._wanted
            if not self._watching:
                await self._again.wait()
                continue
            try:
                with contextlib.closing(FolderEvents(sorted(self._watching), self._react)):
                    self._look()  # it may have changed before
                    while not await self._is_asked_within(_BACKSTOP_SECONDS):
                        self._look()
            except OSError as error:  # a folder is gone, or inotify is exhausted
                self._trouble.say(error)
                await self._is_asked_within(_RETRY_SECONDS)
                self._look()

    async def _is_asked_within(self, seconds: float) -> bool:
        """Waits until other folders are to be watched."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):  # `wait_for` may swallow a cancellation
                await self._again.wait()
        return self._again.is_set()

    def _react(self) -> None:
        self._debounce.trigger(self._quiet)
        if self._wanted != self._watching:
            self._again.set()  # a link leads elsewhere now

    def _look(self) -> None:
        """Finds changes that caused no event."""
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        contents = self._contents()
        if contents is not None and contents != self._seen:
            self._debounce.trigger(self._quiet)

    def check(self) -> None:
        """Asks for what the present content of the files calls for."""
        self._debounce.cancel()
        contents = self._contents()
        if contents is None:
            return
        before, self._seen = self._seen, contents
        changed = {
            path
            for path in before.keys() | self._seen.keys()
            if before.get(path) != self._seen.get(path) and self._matters(path)
        }
        if changed - self._certificates.files:
            self._ask(ReloadRequest("a file changed"))
        if changed & self._certificates.files:
            self._ask(ReloadRequest("a certificate changed", read=False, certificates=True))

    def _matters(self, path: str) -> bool:
        """Whether it is still watched; a deleted file may have matched a pattern."""
        lists = (self._config, self._certificates)
        return any(path in known.files for known in lists) or any(
            fnmatch.fnmatch(path, pattern) for known in lists for pattern in known.patterns
        )

    async def stop(self) -> None:
        """Stops watching."""
        self._debounce.cancel()
        if self._looking is not None:
            self._looking.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
