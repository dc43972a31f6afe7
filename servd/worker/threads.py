"""The threads that sync code runs in: how many, and which request each of them works for.

Nobody can end a thread. When a request is given up whose code runs in one, its task ends, and the
thread goes on: that it still does is known here only.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from servd.worker.asgi.request import Request, current


def _noted(request: Request, work: Callable[..., Any]) -> Callable[..., Any]:
    """`work`, which `request` knows about while a thread is at it, and which is not begun any more
    once the request was given up.
    """
    threads = request.threads = request.threads or set()

    @functools.wraps(work)
    def run(*args: Any, **options: Any) -> Any:
        if request.answering is not None:
            raise RuntimeError("the request was given up before a thread was free")
        token = object()
        threads.add(token)  # adding to a set and discarding from it are atomic
        try:
            return work(*args, **options)
        finally:
            threads.discard(token)

    return run


class NotingExecutor(ThreadPoolExecutor):
    """A thread pool whose work is noted with the request that it is for."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Runs `fn` in a thread."""
        request = current.get()
        return super().submit(_noted(request, fn) if request is not None else fn, *args, **kwargs)


def size_pools(loop: asyncio.AbstractEventLoop, threads: int, *, note: bool) -> None:
    """`threads` for both pools that sync code runs in: asyncio's own and anyio's.

    With `note`, requests know of the threads that work for them.
    """
    pool = NotingExecutor if note else ThreadPoolExecutor
    loop.set_default_executor(pool(threads, "servd-thread"))
    if "anyio" not in sys.modules:
        return
    from anyio import to_thread

    to_thread.current_default_thread_limiter().total_tokens = threads
    if note and not hasattr(to_thread.run_sync, "__wrapped__"):
        to_thread.run_sync = _noting(to_thread.run_sync)  # type: ignore[assignment]


def _noting(run_sync: Callable[..., Any]) -> Callable[..., Any]:
    """The `to_thread.run_sync` of anyio, which has no seam for this."""

    @functools.wraps(run_sync)
    async def noting(func: Callable[..., Any], *args: Any, **options: Any) -> Any:
        request = current.get()
        if request is not None:
            func = _noted(request, func)
        return await run_sync(func, *args, **options)

    return noting
