"""Thread pools for sync code: their size, and which request each thread works for. When a request
is given up, its task ends and its threads, which cannot be ended, continue.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from servd.worker.asgi.request import current


def _tracked(work: Callable[..., Any]) -> Callable[..., Any]:
    """Tracks `work` in the request's `threads`. Raises RuntimeError once that is aborted."""
    request = current.get()
    if request is None:
        return work
    threads = request.threads = request.threads or set()

    @functools.wraps(work)
    def run(*args: Any, **options: Any) -> Any:
        if request.answering is not None:
            raise RuntimeError("the request was aborted before a thread was free")
        token = object()
        threads.add(token)  # adding to a set and discarding from it are atomic
        try:
            return work(*args, **options)
        finally:
            threads.discard(token)

    return run


class TrackingExecutor(ThreadPoolExecutor):
    """A thread pool whose work is tracked by the request that submits it."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Runs `fn` in a thread."""
        return super().submit(_tracked(fn), *args, **kwargs)


def size_pools(loop: asyncio.AbstractEventLoop, threads: int, *, track: bool) -> None:
    """Sets the size of asyncio's and anyio's pools. With `track`, requests track their threads."""
    pool = TrackingExecutor if track else ThreadPoolExecutor
    loop.set_default_executor(pool(threads, "servd-thread"))
    if "anyio" not in sys.modules:
        return
    from anyio import to_thread

    to_thread.current_default_thread_limiter().total_tokens = threads
    if track and not hasattr(to_thread.run_sync, "__wrapped__"):
        to_thread.run_sync = _tracking(to_thread.run_sync)  # type: ignore[assignment]


def _tracking(run_sync: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps anyio's `to_thread.run_sync`: anyio has no hook for this."""

    @functools.wraps(run_sync)
    async def tracking(func: Callable[..., Any], *args: Any, **options: Any) -> Any:
        return await run_sync(_tracked(func), *args, **options)

    return tracking
