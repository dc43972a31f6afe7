"""Tests that are coroutines."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

P = ParamSpec("P")

LIMIT_SECONDS = 10.0


def in_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Runs a test in an event loop of its own; one that hangs fails."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def main() -> None:
            async with asyncio.timeout(LIMIT_SECONDS):
                await test(*args, **kwargs)

        asyncio.run(main())

    return run


async def settle() -> None:
    """Lets the loop do everything that it can do without waiting."""
    for _ in range(50):
        await asyncio.sleep(0)
