"""The source files of an app, which the worker tells the daemon in development: those that its
modules were loaded from, and those that could have been, had they existed.
"""

from __future__ import annotations

import collections
import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

_FILES_PER_MESSAGE = 50
_LIBRARIES = f"{os.sep}site-packages{os.sep}"


class SourceReport:
    """A finder that finds nothing, and notes which modules are searched where (`sys.meta_path`).

    It reports paths below the directory of the app: files of modules; `/app/words` for a module of
    this name that was searched there, whether it was found or not; `/app/words/` if it is nowhere,
    so that a folder of this name may bring it too.
    """

    def __init__(self, directory: str, target: str) -> None:
        self._directory = os.path.abspath(directory)
        self._below = os.path.realpath(directory) + os.sep
        self._folders: dict[str, str | None] = {}
        self._searched: collections.deque[tuple[str, str]] = collections.deque()
        self._told: set[str] = set()
        self._send: Callable[..., object] | None = None
        self._later: Callable[[], object] = _nothing
        file = target.rpartition(":")[0]
        if file.endswith(".py"):  # loaded without a search
            stem = os.path.realpath(os.path.join(directory, file)).removesuffix(".py")
            self._searched.append((file, stem))

    def find_spec(self, name: str, path: Iterable[str] | None = None, _: object = None) -> None:
        """Notes a search, before it takes place."""
        tail = name.rpartition(".")[2]
        for entry in list(sys.path if path is None else path):
            folder = self._folder(entry)
            if folder is None:
                continue
            stem = folder + tail
            self._searched.append((name, stem))
            if os.path.exists(f"{stem}.py") or os.path.isdir(stem):
                self._tell([stem])  # at once: its code may end this process
        if self._searched:
            self._later()

    def _folder(self, entry: str) -> str | None:
        """Returns the folder of an entry of a search path; None unless it is in the app's."""
        if not isinstance(entry, str):
            return None
        entry = os.path.abspath(entry)  # "" is the current directory
        if entry not in self._folders:
            folder = os.path.realpath(entry) + os.sep
            theirs = (os.path.realpath(p) + os.sep for p in (sys.prefix, sys.base_prefix))
            is_own = folder.startswith(self._below) and _LIBRARIES not in folder
            if any(t.startswith(self._below) and folder.startswith(t) for t in theirs):
                is_own = False  # an environment in the app's folder
            self._folders[entry] = folder if is_own else None
        return self._folders[entry]

    def begin(self, send: Callable[..., object]) -> None:
        """Reports by `send(sources=[...])` from now on."""
        self._send = send

    def follow(self, loop: asyncio.AbstractEventLoop) -> None:
        """Reports what is loaded so far, and in `loop` what is loaded later."""
        waits = [False]

        def report() -> None:
            waits[0] = False
            self.report()

        def later() -> None:
            if not waits[0]:
                waits[0] = True
                with contextlib.suppress(RuntimeError):  # the loop is closed: this process ends
                    loop.call_soon_threadsafe(report)

        self._later = later
        self.report()

    def report(self, error: BaseException | None = None) -> None:
        """Reports what is new; with an `error`, also the files of its traceback."""
        found = {os.path.realpath(file) for file in self._files(error)}
        while self._searched:
            name, stem = self._searched.popleft()
            found.add(stem if name in sys.modules else stem + os.sep)
        self._tell(sorted(found))

    def _files(self, error: BaseException | None) -> Iterator[str]:
        files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
        below = self._directory + os.sep
        for file in files | set(_files_of(error)):
            if isinstance(file, str) and file.startswith(below) and _LIBRARIES not in file:
                yield file

    def _tell(self, paths: list[str]) -> None:
        if self._send is None:
            return
        new = [path for path in paths if path not in self._told]
        self._told.update(new)
        for at in range(0, len(new), _FILES_PER_MESSAGE):
            self._send(sources=new[at : at + _FILES_PER_MESSAGE])


def reported(directory: str, target: str = "") -> SourceReport:
    """Returns the report of this process, which begins with the first call. `target` is the app."""
    for finder in sys.meta_path:
        if isinstance(finder, SourceReport):
            return finder
    found = SourceReport(directory, target)
    sys.meta_path.insert(0, found)
    return found


def _files_of(error: BaseException | None) -> Iterator[str | None]:
    """Yields the files that an error, and those that led to it, came from."""
    while error is not None:
        yield from (frame.filename for frame in traceback.extract_tb(error.__traceback__))
        if isinstance(error, SyntaxError):
            yield error.filename
        error = error.__cause__ or error.__context__


def _nothing() -> None:
    """Reports later, on demand."""
