"""How new connections are dealt out to the workers of a service."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servd.wire.accept_board import UNLIMITED, Board, Seat, Sibling, share, share_by_places

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


PLACES = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 4)), max_size=6)


@given(mine=st.integers(0, 12), free=st.integers(-2, 4), others=PLACES, waiting=st.integers(1, 60))
def test_free_places_are_filled_first(
    mine: int, free: int, others: list[tuple[int, int]], waiting: int
) -> None:
    """By all workers together, whoever looks first; none takes more than its places before."""
    siblings = [Sibling(seat, load, places, 0) for seat, (load, places) in enumerate(others, 1)]
    count = share_by_places(mine, free, siblings, waiting)
    places = max(free, 0) + sum(each.free for each in siblings)
    assert 0 <= count <= waiting
    if waiting <= places:
        assert count <= max(free, 0)
        everyone = [(mine, max(free, 0)), *others]
        shares = []
        for index, (load, own) in enumerate(everyone):
            rest = [Sibling(n, *each, 0) for n, each in enumerate(everyone) if n != index]
            shares.append(share_by_places(load, own, rest, waiting))
        assert sum(shares) >= waiting  # none is left by all
    elif count:
        assert count >= max(free, 0)


@given(mine=st.integers(0, 12), others=LOADS, waiting=st.integers(1, 60))
def test_with_places_enough_all_get_as_many_connections(
    mine: int, others: list[int], waiting: int
) -> None:
    siblings = [Sibling(seat, load, 100, 0) for seat, load in enumerate(others, 1)]
    assert share_by_places(mine, 100, siblings, waiting) == share(mine, others, waiting)


def test_a_worker_tells_its_free_places() -> None:
    board = Board("test")
    try:
        first, second, third = (Seat(os.dup(board.descriptor), board.take()) for _ in range(3))
        first.publish(2, 1)
        second.publish(3)  # of a generation without a limit
        third.publish(2**30, -4)
        assert [each[:3] for each in third.siblings()] == [(1, 2, 1), (2, 3, UNLIMITED)]
        assert first.others() == [3, third._words[3] - 1 & 0xFFFFFF]
        assert first.siblings()[1].free == 0
        (before, _) = third.siblings()
        first.publish(2, 1)
        (after, _) = third.siblings()
        assert before != after  # it is alive
    finally:
        board.close()


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
        board._words[2] = last
        assert isinstance(seat.siblings(), list)
    finally:
        board.close()
