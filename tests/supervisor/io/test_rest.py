"""How long pipes that are written to all the time rest."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from unittest import mock

import pytest

from servd.supervisor.io.rest import LARGE_PIPE, SHORTEST_SECONDS, Rest


@pytest.fixture
def pipe() -> Iterator[int]:
    reading, writing = os.pipe()
    yield reading
    os.close(reading)
    os.close(writing)


def after(rest: Rest, *sizes: int) -> float:
    for size in sizes:
        rest.after(size, 0.0)
    return rest.seconds


def test_a_pipe_that_rests_is_made_larger_and_one_that_fills_up_rests_shorter(pipe: int) -> None:
    rest = Rest(pipe, 0.08)
    assert after(rest, 90_000) == 0.08
    assert fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) == LARGE_PIPE
    assert after(rest, 100_000, 100_000) == 0.02
    assert after(rest, 50_000) == 0.02
    assert after(rest, *[1] * 5) == 0.08
    assert after(rest, *[LARGE_PIPE] * 20) == SHORTEST_SECONDS


def test_one_that_cannot_grow_rests_shorter_from_the_first(pipe: int) -> None:
    real = fcntl.fcntl

    def refused(descriptor: int, command: int, *more: int) -> int:
        if command == fcntl.F_SETPIPE_SZ:
            raise PermissionError
        return real(descriptor, command, *more)

    rest = Rest(pipe, 0.08)
    with mock.patch.object(fcntl, "fcntl", refused):
        assert after(rest, 1) == 0.02
    assert after(rest, 20_000) == 0.02
    assert after(rest, 30_000) == 0.01


def test_where_the_size_of_a_pipe_is_not_known_it_is_taken_to_be_the_usual(
    pipe: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(fcntl, "F_SETPIPE_SZ")
    monkeypatch.delattr(fcntl, "F_GETPIPE_SZ")
    rest = Rest(pipe, 0.08)
    assert after(rest, 20_000) == 0.02
    assert after(rest, 30_000) == 0.01


def test_rests_of_a_length_end_together(pipe: int) -> None:
    one, other = Rest(pipe, 0.1), Rest(pipe, 0.1)
    for now, later in ((17.32, 17.39), (17.31, 17.399)):
        assert now + one.after(1, now) == pytest.approx(later + other.after(1, later))
    assert one.after(1, 17.35) == pytest.approx(0.05)
