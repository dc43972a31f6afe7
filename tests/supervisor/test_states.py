"""The states of a service: every rule of the table, and which goes first."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, get_args

import pytest

from servd.supervisor.states import Observation, State, next_state

STATES: tuple[State, ...] = get_args(State)
FLAGS = [f.name for f in dataclasses.fields(Observation) if f.name not in ("wanted", "ready")]


def seen(wanted: int = 2, ready: int = 0, *flags: str) -> Observation:
    given: dict[str, Any] = dict.fromkeys(flags, True)
    return Observation(wanted, ready, **given)


RULES: list[tuple[Observation, State]] = [
    # a change is under way
    (seen(2, 2, "is_ready", "rolls", "once_ready"), "rolling"),
    (seen(2, 1, "rolls", "once_ready", "pausing"), "rolling"),
    (seen(2, 1, "rolls", "unwell"), "rolling"),
    # a task is done
    (seen(1, 0, "completed", "is_ready"), "completed"),
    (seen(1, 0, "completed", "given_up"), "completed"),
    # it is kept stopped
    (seen(0, 0), "stopped"),
    (seen(0, 0, "is_ready"), "stopped"),
    (seen(0, 0, "once_ready", "unwell"), "stopped"),
    # all is there
    (seen(2, 2, "is_ready"), "ready"),
    (seen(2, 2, "is_ready", "once_ready"), "ready"),
    (seen(2, 3, "is_ready", "unwell"), "ready"),
    # some are missing
    (seen(2, 0, "given_up"), "failed"),
    (seen(2, 0, "given_up", "once_ready"), "failed"),
    (seen(2, 0, "given_up", "pausing"), "failed"),
    (seen(2, 1, "given_up", "once_ready"), "degraded"),
    (seen(2, 1, "once_ready"), "degraded"),
    (seen(2, 1, "once_ready", "pausing"), "degraded"),
    (seen(2, 0, "once_ready", "unwell"), "degraded"),
    (seen(2, 0, "once_ready", "unwell", "pausing"), "degraded"),
    (seen(2, 0, "pausing"), "backoff"),
    (seen(2, 0, "pausing", "once_ready"), "backoff"),
    (seen(2, 0), "starting"),
    (seen(2, 0, "once_ready"), "starting"),
    (seen(2, 0, "unwell"), "starting"),
]


@pytest.mark.parametrize(("what", "state"), RULES)
def test_the_state_follows_from_what_is_seen(what: Observation, state: State) -> None:
    for before in STATES:
        if (before, state) != ("backoff", "starting"):
            assert next_state(before, what) == state


@pytest.mark.parametrize("before", STATES)
@pytest.mark.parametrize(
    "what", [seen(2, 1), seen(2, 1, "pausing"), seen(2, 1, "given_up"), seen(2, 1, "unwell")]
)
def test_a_first_start_that_is_half_done_changes_nothing(before: State, what: Observation) -> None:
    assert next_state(before, what) == before


@pytest.mark.parametrize(
    ("what", "state"),
    [
        (seen(2, 0), "backoff"),
        (seen(2, 0, "once_ready"), "backoff"),
        (seen(2, 0, "pausing"), "backoff"),
        (seen(2, 1), "backoff"),
        (seen(2, 1, "once_ready"), "degraded"),
        (seen(2, 2, "is_ready"), "ready"),
        (seen(2, 0, "given_up"), "failed"),
        (seen(0, 0), "stopped"),
        (seen(2, 0, "rolls"), "rolling"),
    ],
)
def test_backoff_stays_through_the_next_start(what: Observation, state: State) -> None:
    assert next_state("backoff", what) == state


PRECEDENCE: list[tuple[State, str]] = [
    ("rolling", "rolls"),
    ("completed", "completed"),
    ("stopped", "wanted"),
    ("ready", "is_ready"),
    ("failed", "given_up"),
    ("degraded", "unwell"),
    ("backoff", "pausing"),
]


@pytest.mark.parametrize("first", range(len(PRECEDENCE)))
def test_the_first_rule_that_holds_decides(first: int) -> None:
    """Everything holds at once, from the first of these on."""
    holding = [name for _, name in PRECEDENCE[first:]]
    flags = [name for name in holding if name != "wanted"]
    what = seen(0 if "wanted" in holding else 2, 0, *flags, "once_ready")
    assert next_state("starting", what) == PRECEDENCE[first][0]


def everything() -> list[Observation]:
    return [
        Observation(wanted, ready, **dict(zip(FLAGS, flags, strict=True)))
        for wanted in (0, 1, 2)
        for ready in (0, 1, 2)
        for flags in itertools.product((False, True), repeat=len(FLAGS))
    ]


def test_whatever_is_seen_the_state_is_stable() -> None:
    """Seen once more, the same changes nothing: no state flickers."""
    for what in everything():
        for before in STATES:
            state = next_state(before, what)
            assert next_state(state, what) == state


def test_workers_alone_never_make_a_service_wait_or_stop() -> None:
    for what in everything():
        for before in STATES:
            assert next_state(before, what) not in {"waiting", "stopping"} - {before}


def test_without_a_worker_that_runs_a_service_is_neither_ready_nor_degraded() -> None:
    for what in everything():
        if not (what.ready or what.is_ready or what.unwell):
            assert next_state("starting", what) not in ("ready", "degraded")
