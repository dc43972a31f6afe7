"""The daemon's end of a worker's channel, and a worker that says anything at all."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket

import pytest

from servd.supervisor.io.channel import LONGEST_MESSAGE, UnansweredError, WorkerChannel
from servd.supervisor.io.messages import WorkerMessage
from servd.supervisor.io.reader import ReadBudget


class Listener:
    """A channel with what came over it."""

    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair()
        self.said: list[WorkerMessage] = []
        self.hung_up = 0
        self.channel = WorkerChannel(ours, self.said.append, self._gone, ReadBudget())

    def _gone(self) -> None:
        self.hung_up += 1


async def settle() -> None:
    """Lets the loop read what is there."""
    for _ in range(50):
        await asyncio.sleep(0)


def test_nothing_that_a_worker_sends_raises() -> None:
    async def talk() -> None:
        listener = Listener()
        for line in (
            b"{",
            b"[]",
            b"7",
            b"[" * 5000,
            b'{"failed": "x", "missing_variable": []}',
            b'{"failed": ["x"]}',
            b'{"draining": {"request": Infinity}}',
            b'{"draining": {"request": -1}}',
            b'{"draining": {"request": 1e400}}',
            b'{"draining": [1]}',
            b'{"recycle": ["stuck"]}',
            b'{"recycle": "because"}',
            b'{"sources": "abc"}',
            b'{"sources": [1]}',
            b'{"answer": [1]}',
            b'{"answer": {}}',
            b'{"answer": 99}',
            b"\xff\xfe",
            b'{"draining": {"request": 1}}',
        ):
            listener.theirs.sendall(line + b"\n")
        await settle()
        assert [message.draining for message in listener.said] == [{"request": 1}]
        listener.theirs.sendall(b'{"failed": 1}\n' * 100 + b'{"failed": "why"}\n')
        listener.channel.close()
        assert [message.failed for message in listener.said[1:]] == ["why"]
        listener.theirs.close()

    asyncio.run(talk())


def test_a_message_without_end_is_not_listened_to_for_long() -> None:
    async def talk() -> None:
        listener = Listener()
        listener.theirs.setblocking(False)
        sent = 0
        while not listener.hung_up:
            with contextlib.suppress(BlockingIOError):
                sent += listener.theirs.send(b"x" * 10_000)
            assert sent < 4 * LONGEST_MESSAGE
            await settle()
        listener.channel.close()
        listener.theirs.close()

    asyncio.run(talk())


def test_the_end_of_a_channel_that_goes_on_being_written_to_comes() -> None:
    async def talk() -> None:
        listener = Listener()
        writes = b'{"failed": "x"}\n' * 10
        real = listener.channel.said

        def says_more(message: WorkerMessage) -> None:
            real(message)
            listener.theirs.sendall(writes)

        listener.channel.said = says_more
        listener.theirs.sendall(writes)
        listener.channel.close()
        assert 10 <= len(listener.said) < 1000
        listener.theirs.close()

    asyncio.run(talk())


def test_answers_find_who_asked() -> None:
    async def talk() -> None:
        listener = Listener()
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[int] = loop.create_future()
        one = asyncio.ensure_future(listener.channel.ask("this", ended, detail=1))
        other = asyncio.ensure_future(listener.channel.ask("that", ended))
        await settle()
        asked = [json.loads(line) for line in listener.theirs.recv(65536).splitlines()]
        assert [message["do"] for message in asked] == ["this", "that"]
        assert asked[0]["detail"] == 1
        for message in reversed(asked):
            error = "cannot" if message["do"] == "that" else ""
            answer = {"answer": message["ask"], "error": error}
            listener.theirs.sendall(json.dumps(answer).encode() + b"\n")
        await one
        with pytest.raises(UnansweredError, match="cannot"):
            await other
        waiting = asyncio.ensure_future(listener.channel.ask("more", ended))
        await settle()
        ended.set_result(0)
        with pytest.raises(UnansweredError, match="it exited"):
            await waiting
        listener.channel.close()
        listener.theirs.close()

    asyncio.run(talk())
