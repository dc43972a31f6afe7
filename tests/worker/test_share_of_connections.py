"""What a worker takes of the connections that wait, by what its siblings have."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

import pytest

from servd.http.balance import Balance, waiting
from servd.wire.accept_board import Board, Seat

from support.harness import wait_until


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
