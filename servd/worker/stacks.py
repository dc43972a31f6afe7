"""Where an app is: the stacks of its threads and tasks, without those that only wait for work."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Any

from servd.worker.events import EventWriter

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_RUNNERS = (
    "/importlib/", "/asyncio/", "/uvicorn/", "/concurrent/futures/", "/threading.py",
    "/selectors.py",
)  # fmt: skip
"""Parts of the paths of what runs an app: a stack that ends there waits for work."""

_MOST_TASKS = 20
_END_SECONDS = 1.0
"""Time that threads have to end once the app has."""


class EndWatch(threading.Thread):
    """Says what keeps a worker from ending: an app that has not ended `seconds` after its drain, or
    threads that live on (the interpreter waits for those that are no daemon threads).
    """

    def __init__(self, writer: EventWriter, seconds: float) -> None:
        super().__init__(name="servd-end-watch", daemon=True)
        self.app_ended = threading.Event()
        self._writer = writer
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()

    def run(self) -> None:
        """Waits, and reports; the process has usually ended by then."""
        loop: asyncio.AbstractEventLoop | None = self._loop
        if self.app_ended.wait(self._seconds):
            time.sleep(_END_SECONDS)
            loop = None
        names = [t.name for t in threading.enumerate() if not t.daemon and t.name != "MainThread"]
        event = "worker still running after its drain"
        self._writer.event("warning", event, threads=names, exception=stacks(loop))


def stacks(loop: asyncio.AbstractEventLoop | None) -> str:
    """Returns the stacks of the threads, and of the tasks of `loop`, as a traceback shows them."""
    shown: list[str] = []
    frames = sys._current_frames()
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        if frame is None or thread is threading.current_thread() or _is_loop(frame):
            continue
        shown += _shown(f"thread {thread.name}", [f for f, _ in traceback.walk_stack(frame)][::-1])
    for task in _tasks(loop):
        shown += _shown(f"task {task.get_name()}", list(_awaited(task.get_coro())))
    return "\n".join(shown)


def _is_loop(frame: FrameType) -> bool:
    """Whether a thread's innermost frame is that of an event loop, which waits for work: what its
    tasks do is elsewhere.
    """
    file = frame.f_code.co_filename
    return file.endswith("/selectors.py") or "/asyncio/" in file


def _tasks(loop: asyncio.AbstractEventLoop | None) -> list[asyncio.Task[Any]]:
    if loop is None or loop.is_closed():
        return []
    with contextlib.suppress(RuntimeError):  # they changed meanwhile
        return sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name())[:_MOST_TASKS]
    return []


def _awaited(waits: Any) -> Iterator[FrameType]:
    """Yields the frame of a coroutine, and of each that it waits for."""
    while waits is not None:
        if type(waits).__name__.startswith("async_generator_a"):  # it does not name its generator
            found = (item for item in gc.get_referents(waits) if inspect.isasyncgen(item))
            waits = next(found, None)
        for kind in ("cr", "gi", "ag"):
            frame = getattr(waits, f"{kind}_frame", None)
            if frame is not None:
                yield frame
                waits = getattr(waits, f"{kind}_yieldfrom" if kind == "gi" else f"{kind}_await")
                break
        else:
            return


def _shown(name: str, frames: list[FrameType]) -> list[str]:
    """Returns a stack, outermost frame first, without what runs the app; nothing if that is all."""
    while frames and _is_runner(frames[0]):
        frames.pop(0)
    if not frames:
        return []
    lines = traceback.StackSummary.extract((frame, frame.f_lineno) for frame in frames).format()
    return [f"{name}:", "".join(lines).rstrip("\n")]


def _is_runner(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    return file.startswith((_OURS, "<frozen")) or any(part in file for part in _RUNNERS)
