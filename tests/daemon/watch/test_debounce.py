"""A burst of triggers becomes one action, on a clock that the test moves."""

from __future__ import annotations

import pytest

from servd.daemon.watch.debounce import LONGEST_FACTOR, Debounce

from support.in_loop import in_loop, settle
from support.manual_clock import ManualClock

QUIET = 1.0


class Acts:
    """A debounced action and the times at which it was done."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.times: list[float] = []
        self.debounce = Debounce(lambda: self.times.append(self.clock.time()), self.clock)

    def trigger(self, *pauses: float) -> None:
        for pause in pauses:
            self.clock.advance(pause)
            self.debounce.trigger(QUIET)


def test_nothing_happens_without_a_trigger() -> None:
    acts = Acts()
    acts.clock.advance(100)
    assert acts.times == []


def test_a_burst_is_acted_on_once_after_its_last_trigger() -> None:
    acts = Acts()
    acts.trigger(0, 0.5, 0.5, 0.9)
    assert acts.times == []
    acts.clock.advance(100)
    assert acts.times == pytest.approx([1.9 + QUIET])


def test_separate_bursts_are_acted_on_separately() -> None:
    acts = Acts()
    acts.trigger(0, 0.5, 5, 0.5)
    acts.clock.advance(100)
    assert acts.times == pytest.approx([0.5 + QUIET, 6.0 + QUIET])


def test_a_burst_that_never_pauses_is_acted_on_at_the_cap_again_and_again() -> None:
    acts = Acts()
    acts.trigger(*[0.25] * 48)
    cap = LONGEST_FACTOR * QUIET
    assert acts.times == pytest.approx([0.25 + cap, 0.25 + cap + 0.25 + cap], abs=0.3)


def test_the_time_until_the_cap_is_measured_from_the_first_trigger_of_its_own_burst() -> None:
    acts = Acts()
    acts.trigger(0)
    acts.clock.advance(4 * QUIET)
    acts.times.clear()
    acts.trigger(*[0.0, *[0.5] * 6])
    assert acts.times == []
    acts.clock.advance(100)
    assert acts.times == pytest.approx([4 * QUIET + 3.0 + QUIET])


def test_a_shorter_quiet_time_brings_the_action_forward() -> None:
    acts = Acts()
    acts.debounce.trigger(10)
    acts.debounce.trigger(0.5)
    acts.clock.advance(100)
    assert acts.times == [0.5]


def test_a_cancelled_action_is_not_done_and_a_later_trigger_is_a_new_burst() -> None:
    acts = Acts()
    acts.trigger(0, 0.9)
    acts.debounce.cancel()
    acts.debounce.cancel()
    acts.clock.advance(100)
    assert acts.times == []
    assert acts.clock.pending == 0
    acts.trigger(0)
    acts.clock.advance(100)
    assert acts.times == pytest.approx([100.9 + QUIET])


def test_an_action_that_triggers_itself_is_done_again() -> None:
    clock, times = ManualClock(), list[float]()

    def act() -> None:
        times.append(clock.time())
        if len(times) < 3:
            debounce.trigger(QUIET)

    debounce = Debounce(act, clock)
    debounce.trigger(QUIET)
    clock.advance(100)
    assert times == [1, 2, 3]


@in_loop
async def test_the_running_loop_is_the_clock_by_default() -> None:
    acts: list[str] = []
    debounce = Debounce(lambda: acts.append("act"))
    debounce.trigger(0.0)
    debounce.trigger(0.0)
    await settle()
    assert acts == ["act"]
