"""Thread pools for sync code: their size, and which request each thread works for. When a request
is given up, its task ends and its threads, which cannot be ended, continue. Nobody needs what they
do: they keep no worker.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from servd.worker.asgi.request import Request, current

_GATEWAY_TIMEOUT = 504
_PAUSE_SECONDS = 0.02

_running: dict[object, Request] = {}
"""What runs in threads, and the request that each works for."""


def only_useless_work_is_left() -> bool:
    """Whether threads still work, all of them for requests that were given up: answered with 504,
    or cut. Beside such threads it waits for others, which the end of a loop or of the interpreter
    does only together with them.
    """
    while useless := [_is_given_up(request) for request in list(_running.values())]:
        if all(useless) or not any(useless):
            return all(useless)
        time.sleep(_PAUSE_SECONDS)
    return False


def _is_given_up(request: Request) -> bool:
    is_timeout = request.start is not None and request.start["status"] == _GATEWAY_TIMEOUT
    return request.answering is not None or is_timeout


def _tracked(work: Callable[..., Any]) -> Callable[..., Any]:
    """Tracks `work` in the request's `threads`. Raises RuntimeError once that is aborted."""
    request = current.get()
    if request is None:
        return work
    request.threads = request.threads or set()
    return functools.partial(_run, request, request.threads, work)


def _run(
    request: Request, threads: set[object], work: Callable[..., Any], *args: Any, **options: Any
) -> Any:
    if request.answering is not None:
        raise RuntimeError("the request was aborted before a thread was free")
    token = object()
    threads.add(token)  # each step here is atomic
    _running[token] = request
    try:
        return work(*args, **options)
    finally:
        del _running[token]
        threads.discard(token)


class TrackingExecutor(ThreadPoolExecutor):
    """A thread pool whose work is tracked by the request that submits it."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Runs `fn` in a thread."""
        return super().submit(_tracked(fn), *args, **kwargs)


def size_pools(loop: asyncio.AbstractEventLoop, threads: int) -> None:
    """Sets the size of asyncio's and anyio's pools, and has requests track their threads."""
    loop.set_default_executor(TrackingExecutor(threads, "servd-thread"))
    if "anyio" not in sys.modules:
        return
    from anyio import to_thread

    to_thread.current_default_thread_limiter().total_tokens = threads
    if not hasattr(to_thread.run_sync, "__wrapped__"):
        to_thread.run_sync = _tracking(to_thread.run_sync)  # type: ignore[assignment]


def _tracking(run_sync: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps anyio's `to_thread.run_sync`: anyio has no hook for this."""

    @functools.wraps(run_sync)
    async def tracking(func: Callable[..., Any], *args: Any, **options: Any) -> Any:
        return await run_sync(_tracked(func), *args, **options)

    return tracking
