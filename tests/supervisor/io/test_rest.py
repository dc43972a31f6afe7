"""How long pipes that are written to all the time rest."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from unittest import mock

import pytest

from servd.supervisor.io.rest import LARGEST_PIPE, Rest


@pytest.fixture
def pipe() -> Iterator[int]:
    reading, writing = os.pipe()
    yield reading
    os.close(reading)
    os.close(writing)


def test_a_pipe_that_fills_up_is_made_larger_and_then_rests_shorter(pipe: int) -> None:
    rest = Rest(pipe, 0.08)
    rest.took(20_000)
    assert rest.seconds == 0.08
    rest.took(60_000)
    assert (rest.seconds, fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ)) == (0.08, LARGEST_PIPE)
    rest.took(90_000)
    assert rest.seconds == 0.08
    rest.took(100_000)
    rest.took(100_000)
    assert rest.seconds == 0.02
    rest.took(50_000)
    assert rest.seconds == 0.02
    for _ in range(5):
        rest.took(1)
    assert rest.seconds == 0.08


def test_one_that_cannot_grow_rests_shorter_but_not_at_no_time_at_all(pipe: int) -> None:
    rest = Rest(pipe, 0.08)
    with mock.patch.object(fcntl, "fcntl", side_effect=PermissionError):
        for _ in range(9):
            rest.took(40_000)
    assert rest.seconds == 0.005


def test_rests_of_a_length_end_together(pipe: int) -> None:
    one, other = Rest(pipe, 0.1), Rest(pipe, 0.1)
    for now, later in ((17.32, 17.39), (17.31, 17.399)):
        assert now + one.left(now) == pytest.approx(later + other.left(later))
    assert one.left(17.35) == pytest.approx(0.05)
