"""When a dead worker is started again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from servd.config.worker_tables import Restart
from servd.supervisor.respawn import Death, RestartHistory, after_death

CRASH = Death(status=-9, was_ready=True, lived=5.0)
YOUNG = Death(status=1, was_ready=False, lived=0.1)


def pauses(death: Death, restart: Restart, times: int) -> list[float]:
    history = RestartHistory()
    result = []
    for _ in range(times):
        history = after_death(history, death, restart, now=100.0)
        result.append(history.until - 100.0)
    return result


def test_a_worker_that_was_ready_is_replaced_at_once_the_first_time() -> None:
    assert pauses(CRASH, Restart(), 4) == [0.0, 0.5, 1.0, 2.0]


def test_a_worker_that_never_got_ready_waits_from_the_first_time() -> None:
    assert pauses(YOUNG, Restart(), 3) == [0.5, 1.0, 2.0]


def test_pauses_grow_up_to_the_longest() -> None:
    assert pauses(YOUNG, Restart(backoff_max=3.0), 5)[-2:] == [3.0, 3.0]


def test_a_long_life_starts_from_the_beginning() -> None:
    history = RestartHistory(failures=5)
    old = Death(status=1, was_ready=True, lived=61.0)
    assert after_death(history, old, Restart(), 0.0).failures == 1


def test_giving_up_counts_failures_in_a_row() -> None:
    restart = Restart(give_up_after=2)
    first = after_death(RestartHistory(), YOUNG, restart, 0.0)
    assert first.over == ""
    assert after_death(first, YOUNG, restart, 0.0).over == "gave_up"


def test_policies_decide_which_deaths_are_followed_by_a_start() -> None:
    done = Death(status=0, was_ready=True, lived=1.0)
    assert after_death(RestartHistory(), done, Restart(policy="on-failure"), 0.0).over == "exited"
    assert after_death(RestartHistory(), CRASH, Restart(policy="on-failure"), 0.0).over == ""
    assert after_death(RestartHistory(), CRASH, Restart(policy="never"), 0.0).over == "exited"
    assert after_death(RestartHistory(), YOUNG, Restart(policy="never"), 0.0).over == "policy"
    assert after_death(RestartHistory(), done, Restart(policy="always"), 0.0).over == ""


@given(
    deaths=st.lists(st.sampled_from([CRASH, YOUNG]), min_size=1, max_size=200),
    jitter=st.floats(-1, 1),
)
def test_no_pause_is_ever_longer_than_the_longest_with_its_jitter(
    deaths: list[Death], jitter: float
) -> None:
    history = RestartHistory()
    for death in deaths:
        history = after_death(history, death, Restart(), 0.0, jitter)
        assert 0.0 <= history.until <= 30.0 * 1.1
