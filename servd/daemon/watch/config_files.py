"""Changes of files on disk ask for a reload, once they have been quiet for a moment."""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import math
import time
from collections.abc import Callable

import structlog

from servd.config.load import Loaded
from servd.core.events import Event
from servd.daemon.reload.request import ReloadRequest
from servd.daemon.watch.debounce import ClockTimer, Debounce, TimerClock
from servd.daemon.watch.paths import WatchList, of_certificates, of_config

BACKSTOP_SECONDS = 10.0
"""The files are looked at so often even when the kernel reports nothing: network file systems
report nothing, and a folder that was replaced is watched in vain."""

_CATCH_UP = 0.2
"""Seconds after which what changed while a watch was being set up is looked for."""

_AFTER_FAILURE = 2.0

_SAY_AGAIN = 60.0
"""Seconds after which trouble that lasts is said once more."""

log = structlog.get_logger()


class Trouble:
    """Says why files cannot be watched: at once, and then now and again."""

    def __init__(self) -> None:
        self._said: dict[str, float] = {}

    def say(self, error: Exception) -> None:
        """It cannot be done just now."""
        now = time.monotonic()
        if now - self._said.get(str(error), -math.inf) >= _SAY_AGAIN:
            self._said = {str(error): now}
            log.warning(
                Event.FILES_NOT_WATCHED,
                error=str(error),
                next_action=f"tried every {_AFTER_FAILURE:g} s",
            )


class FileWatch:
    """Watches the files of the configuration that was read last, and certificates in use. `clock`
    is the running loop by default.
    """

    def __init__(
        self, ask: Callable[[ReloadRequest], object], clock: TimerClock | None = None
    ) -> None:
        self._ask = ask
        self._config = WatchList()
        self._certificates = WatchList()
        self._seen: dict[str, bytes] = {}
        self._quiet = 0.3
        self._watching: tuple[frozenset[str], float] | None = None
        self._again = asyncio.Event()
        self._clock: TimerClock = clock or asyncio.get_running_loop()
        self._debounce = Debounce(self.check, self._clock)
        self._looking: ClockTimer | None = None
        self._trouble = Trouble()
        self._task: asyncio.Task[None] | None = None

    def has_read(self, loaded: Loaded) -> None:
        """Notes what is in the files of the first configuration, before any watching."""
        self._choose(loaded, loaded)
        self.about_to_read()

    def about_to_read(self) -> None:
        """Notes what is in the files now: what changes from here on, a reader may have missed."""
        contents = self._contents()
        if contents is not None:
            self._seen = contents

    def look_at(self, read: Loaded, running: Loaded) -> None:
        """Watches the files of `read`, valid or not, and the certificates of what is `running`,
        which also says whether to watch.
        """
        self._choose(read, running)
        contents = self._contents()
        if contents is not None:
            self._seen = {**contents, **self._seen}
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
    def _wanted(self) -> tuple[frozenset[str], float]:
        return self._config.folders | self._certificates.folders, self._quiet

    def _contents(self) -> dict[str, bytes] | None:
        """None while it cannot be known: then it is looked at again."""
        try:
            return self._config.contents() | self._certificates.contents()
        except OSError:
            self._looking = self._looking or self._clock.call_at(
                self._clock.time() + _AFTER_FAILURE, self._look
            )
            return None

    async def _run(self) -> None:
        from watchfiles import awatch

        loop = asyncio.get_running_loop()
        while True:
            self._again.clear()
            self._watching = folders, seconds = self._wanted
            if not folders:
                await self._again.wait()
                continue
            catching_up = loop.call_later(_CATCH_UP, self._look)
            try:
                async for changes in awatch(
                    *sorted(folders),
                    stop_event=self._again,
                    rust_timeout=int(BACKSTOP_SECONDS * 1000),
                    yield_on_timeout=True,
                    recursive=False,
                    watch_filter=None,
                ):
                    if not changes:
                        self._look()
                        continue
                    self._debounce.trigger(seconds)
                    if self._wanted != self._watching:
                        break  # a link leads elsewhere now
            except (OSError, RuntimeError) as error:  # a folder is gone, or inotify is exhausted
                self._trouble.say(error)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._again.wait(), _AFTER_FAILURE)
                self._look()
            finally:
                catching_up.cancel()

    def _look(self) -> None:
        """Looks for what no event told of."""
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
        """Whether it is still watched; a file that is gone may have matched a pattern."""
        lists = (self._config, self._certificates)
        return any(path in known.files for known in lists) or any(
            fnmatch.fnmatch(path, pattern) for known in lists for pattern in known.patterns
        )

    async def stop(self) -> None:
        """Ends the watching."""
        self._debounce.cancel()
        if self._looking is not None:
            self._looking.cancel()
        if self._task is not None:
            self._again.set()
            self._task.cancel()
            await asyncio.wait({self._task})
