"""What a worker takes of the connections that wait, by what its siblings have."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator

import pytest

from servd.http.balance import Balance, waiting
from servd.wire.accept_board import Board, Seat

from support.harness import DEADLINE, wait_until


@pytest.fixture
def two() -> Iterator[tuple[Balance, Balance]]:
    """Two workers of one service."""
    board = Board("test")
    first, second = (Balance(Seat(os.dup(board.descriptor), board.take())) for _ in range(2))
    first.begin()
    second.begin()
    yield first, second
    board.close()


@contextlib.contextmanager
def listening(count: int, family: int = socket.AF_INET) -> Iterator[socket.socket]:
    """A socket at which so many connections wait."""
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.socket(family))
        sock.bind(("127.0.0.1", 0) if family == socket.AF_INET else "")
        sock.listen(64)
        for _ in range(count):
            client = stack.enter_context(socket.socket(family))
            client.connect(sock.getsockname())
        if family == socket.AF_INET:
            wait_until(lambda: waiting(sock) == count, "the connections wait")
        yield sock


def test_each_takes_its_share(two: tuple[Balance, Balance]) -> None:
    first, second = two
    with listening(10) as sock:
        assert first.share(sock, 64) == 5
        assert first.rest(sock, 64) == 5  # of those that the other leaves
        first.pending.update(range(6))
        first.publish()
        assert second.share(sock, 64) == 8
        assert first.share(sock, 64) == 2


def test_one_with_more_leaves_them(two: tuple[Balance, Balance]) -> None:
    first, second = two
    first.connections.update(range(30))
    first.publish()
    with listening(10) as sock:
        assert (first.share(sock, 64), second.share(sock, 64)) == (0, 10)


def test_nothing_waits_for_one_that_wakes_late(two: tuple[Balance, Balance]) -> None:
    """It goes on looking: a pause would make the next connection wait."""
    first, _ = two
    with listening(0) as sock:
        assert first.share(sock, 64) is None


def test_the_end_of_a_connection_is_told(two: tuple[Balance, Balance]) -> None:
    first, second = two
    first.connections.add("a")
    second.pending.add(1)
    first.publish()
    second.publish()
    with listening(1) as sock:
        assert second.share(sock, 64) == 1
        first.connections.discard("a")
        assert second.share(sock, 64) == 0
        first.connections.add("b")
        first.publish()
        first.connections.remove("b")
        assert second.share(sock, 64) == 0


def test_alone_it_takes_all(two: tuple[Balance, Balance]) -> None:
    first, second = two
    second.leave()
    second.publish()  # too late: it has left
    with listening(10) as sock:
        assert first.share(sock, 64) == 64


def test_at_a_unix_socket_nobody_knows_how_many_wait(two: tuple[Balance, Balance]) -> None:
    first, second = two
    with listening(3, socket.AF_UNIX) as sock:
        assert waiting(sock) is None
        assert first.share(sock, 64) == 1
        first.pending.add(1)
        first.publish()
        assert first.share(sock, 64) == 0
        assert second.share(sock, 64) == 1
        assert first.rest(sock, 64) == 4


@pytest.fixture
def places(two: tuple[Balance, Balance]) -> tuple[list[int], list[int]]:
    """The free places of both: one each."""
    first, second = two
    of_first, of_second = [1], [1]
    first.places = lambda: of_first[0]
    second.places = lambda: of_second[0]
    first.publish()
    second.publish()
    return of_first, of_second


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_a_full_worker_leaves_connections_to_one_with_a_free_place(
    two: tuple[Balance, Balance], places: tuple[list[int], list[int]], family: int
) -> None:
    first, second = two
    second.connections.update(range(9))
    second.publish()
    places[0][0] = 0
    with listening(1, family) as sock:
        assert first.share(sock, 64) == 0
        assert first.rest(sock, 64, patient=True) is None
        assert second.share(sock, 64) == 1
        places[1][0] = 0
        second.publish()
        assert first.share(sock, 64) == 1  # both are full: its turn


def test_a_sibling_that_takes_nothing_is_believed_when_it_tells_something(
    two: tuple[Balance, Balance], places: tuple[list[int], list[int]]
) -> None:
    first, second = two
    places[0][0] = 0
    with listening(1) as sock:
        assert first.rest(sock, 64, patient=False) == 1
        assert first.free_elsewhere() == 0
        assert first.share(sock, 64) == 1
        second.publish()
        assert first.free_elsewhere() == 1
        assert first.share(sock, 64) == 0


def test_nobody_is_doubted_when_nothing_waits(
    two: tuple[Balance, Balance], places: tuple[list[int], list[int]]
) -> None:
    first, _ = two
    places[0][0] = 0
    for family in (socket.AF_INET, socket.AF_UNIX):
        with listening(0, family) as sock:
            assert first.rest(sock, 64, patient=False) in {0, 4}
            assert first.free_elsewhere() == 1


def test_of_the_rest_it_takes_no_more_than_it_has_places(
    two: tuple[Balance, Balance], places: tuple[list[int], list[int]]
) -> None:
    with listening(10) as sock:
        assert two[0].rest(sock, 64) == 1


def test_a_new_connection_claims_a_place_until_its_request_comes(
    two: tuple[Balance, Balance],
    places: tuple[list[int], list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = two

    async def accept() -> None:
        first.accepted("a")
        assert second.free_elsewhere() == 0
        first.connections.add("a")
        first.made("a")
        assert second.free_elsewhere() == 0
        first.asked("a")  # and this one takes no place
        first.publish()
        assert second.free_elsewhere() == 1
        first.accepted("b")
        first.made("b")  # its handshake has failed
        assert second.free_elsewhere() == 1
        first.accepted("handshake")
        first.accepted("silent")
        first.connections.add("silent")
        first.made("silent")
        places[0][0] = 2
        ended = asyncio.Event()
        monkeypatch.setattr(first, "publish", ended.set)
        while "silent" in first.claims:  # the timer was set for an earlier one
            await asyncio.wait_for(ended.wait(), DEADLINE)
            ended.clear()
        monkeypatch.undo()
        first.publish()
        assert set(first.claims) == {"handshake"}
        assert second.free_elsewhere() == 1
        first.connections.add("handshake")
        first.made("handshake")
        first.connections.discard("handshake")
        assert second.free_elsewhere() == 2

    asyncio.run(accept())


def test_no_more_clients_are_moved_at_once_than_there_are_places(
    two: tuple[Balance, Balance], places: tuple[list[int], list[int]]
) -> None:
    first, second = two

    async def move() -> None:
        asyncio.get_running_loop().time = lambda: 1000.0  # type: ignore[method-assign]
        assert [first.may_move() for _ in range(3)] == [True, False, False]
        asyncio.get_running_loop().time = lambda: 1000.2  # type: ignore[method-assign]
        assert first.may_move()
        asyncio.get_running_loop().time = lambda: 1000.4  # type: ignore[method-assign]
        places[1][0] = 0
        second.publish()
        assert not first.may_move()

    asyncio.run(move())
