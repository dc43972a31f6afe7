"""An event loop whose clock jumps: an hour of pauses passes in a millisecond of a test."""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

BEGIN_SECONDS = 1000.0
"""The clock's first time: as with the real one, 0 is long ago."""

LONGEST_TEST_SECONDS = 20_000.0
"""Virtual seconds after which a test is taken for one that waits for what never comes."""


class _JumpingSelector(selectors.DefaultSelector):
    """Never blocks: where nothing is ready, the loop's clock jumps to its next timer."""

    loop: VirtualTimeLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        if not found and timeout != 0:
            self.loop.jump(timeout)
        return found


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop with a virtual clock. `faults` are exceptions that no one has taken."""

    def __init__(self) -> None:
        selector = _JumpingSelector()
        super().__init__(selector)
        selector.loop = self
        self._now = BEGIN_SECONDS
        self.faults: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.faults.append(context))

    def time(self) -> float:
        return self._now

    def jump(self, seconds: float | None) -> None:
        """Lets time pass. Raises AssertionError where nothing would ever happen."""
        assert seconds is not None, "everything waits, and no timer is set"
        self._now += seconds
        assert self._now < BEGIN_SECONDS + LONGEST_TEST_SECONDS, "waits for what never comes"


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, run on a virtual clock. Raises what no one has taken, too."""
    loop = VirtualTimeLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        result = runner.run(work)
    assert not loop.faults, loop.faults
    return result


def virtual_time(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Makes an asynchronous test one that runs on a virtual clock."""

    @functools.wraps(test)
    def whole(*args: P.args, **kwargs: P.kwargs) -> None:
        async def work() -> None:
            await test(*args, **kwargs)

        run(work())

    return whole


def now() -> float:
    """Virtual seconds since the test began, rounded so that sums of decimals compare equal."""
    return round(asyncio.get_running_loop().time() - BEGIN_SECONDS, 6)
