"""How new connections are dealt out to the workers of a service."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servd.wire.accept_board import Board, Seat, share

LOADS = st.lists(st.integers(0, 12), max_size=6)


def dealt(mine: int, others: list[int], waiting: int) -> int:
    """One by one, to whoever has the fewest; at a tie, to this one."""
    loads = [mine, *others]
    for _ in range(waiting):
        loads[loads.index(min(loads))] += 1
    return loads[0] - mine


@given(mine=st.integers(0, 12), others=LOADS, waiting=st.integers(0, 60))
def test_a_share_is_what_dealing_one_by_one_gives(
    mine: int, others: list[int], waiting: int
) -> None:
    assert share(mine, others, waiting) == dealt(mine, others, waiting)


def test_a_place_tells_of_those_that_accept() -> None:
    board = Board("test")
    try:
        first, second, third = (Seat(os.dup(board.descriptor), board.take()) for _ in range(3))
        assert first.others() == []
        first.publish(4)
        second.publish(0)
        assert (first.others(), second.others(), third.others()) == ([0], [4], [4, 0])
        second.leave()
        assert third.others() == [4]
        board.give_back(1)  # it was killed
        assert third.others() == []
        assert board.take() == 1  # and its seat is another's
    finally:
        board.close()


def test_more_workers_than_places_accept_as_if_they_were_alone() -> None:
    board = Board("test")
    try:
        seats = [board.take() for _ in range(600)]
        assert seats[-1] == 0
        lone = Seat(os.dup(board.descriptor), 0)
        lone.publish(3)
        other = Seat(os.dup(board.descriptor), 1)
        assert other.others() == []
        board.give_back(0)
    finally:
        board.close()


@pytest.mark.parametrize("last", [-5, 2**40])
def test_nonsense_on_the_board_harms_nobody(last: int) -> None:
    """A worker may write what it likes: the others stay within the memory."""
    board = Board("test")
    try:
        seat = Seat(os.dup(board.descriptor), board.take())
        board._words[0] = last
        assert isinstance(seat.others(), list)
    finally:
        board.close()
