"""When a dead worker is started again: pure arithmetic on its history."""

from __future__ import annotations

from typing import Literal

from servd.config.worker_tables import Restart
from servd.core.quick_dataclass import dataclass

JITTER = 0.1
"""Fraction by which pauses vary, so that workers that die together do not start together."""


@dataclass(frozen=True, slots=True)
class RestartHistory:
    """The history of one worker slot: `failures` are deaths in a row; nothing starts before `until`
    (on the clock of `now`); `over` is the reason why nothing starts again (`exited`: the end was as
    the policy wants it).
    """

    failures: int = 0
    until: float = 0.0
    over: Literal["", "gave_up", "policy", "exited"] = ""


@dataclass(frozen=True, slots=True)
class Death:
    """How a worker ended: exit status (negative: the signal), readiness (a program that ended well
    counts as ready), lifetime in seconds.
    """

    status: int
    was_ready: bool
    lived: float

    @property
    def failed(self) -> bool:
        """Whether `on-failure` counts it as a failure."""
        return self.status != 0 or not self.was_ready


def after_death(
    history: RestartHistory, death: Death, restart: Restart, now: float, jitter: float = 0.0
) -> RestartHistory:
    """The history after `death`. `jitter` is a number from -1 to 1.

    A worker that was ready is replaced at once the first time. One that never got ready, or dies
    again, waits `backoff`, then longer by `backoff_factor` each time, up to `backoff_max`.
    """
    if restart.policy == "never" or (restart.policy == "on-failure" and not death.failed):
        as_wanted = death.was_ready or not death.failed
        over: Literal["policy", "exited"] = "exited" if as_wanted else "policy"
        return RestartHistory(history.failures, history.until, over)
    proven = death.was_ready and death.lived >= restart.reset_after
    failures = 1 if proven else history.failures + 1
    if restart.give_up_after and failures >= restart.give_up_after:
        return RestartHistory(failures, now, "gave_up")
    steps = failures - 1 if death.was_ready else failures
    pause = 0.0
    if steps > 0:
        grown = restart.backoff * restart.backoff_factor ** min(steps - 1, 64)
        pause = min(restart.backoff_max, grown) * (1 + JITTER * jitter)
    return RestartHistory(failures, now + pause)
