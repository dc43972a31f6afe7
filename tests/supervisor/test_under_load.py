"""A worker that is killed under load takes only the requests on its own connections with it."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass, field

from support.apps import PID_IN_A_CHUNK
from support.harness import DEADLINE, Servd


@dataclass
class Tally:
    """What clients met: answers by pid, and failures with the pid that had answered before."""

    answers: dict[int, int] = field(default_factory=dict)
    failed_on: list[int | None] = field(default_factory=list)
    refused: int = 0


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    size = int((await reader.readuntil(b"\r\n")).strip(), 16)
    body = await reader.readexactly(size + 2)
    await reader.readuntil(b"0\r\n\r\n")
    return int(body)


async def client(
    address: tuple[str, int], over: asyncio.Event, tally: Tally, *, kept: bool
) -> None:
    """Asks again and again, on one connection or on a new one each time. Never retries."""
    while not over.is_set():
        pid: int | None = None
        try:
            async with asyncio.timeout(DEADLINE):
                reader, writer = await asyncio.open_connection(*address)
                try:
                    while not over.is_set():
                        pid = await ask(reader, writer)
                        tally.answers[pid] = tally.answers.get(pid, 0) + 1
                        await asyncio.sleep(0.005)
                        if not kept:
                            break
                finally:
                    writer.close()
        except ConnectionRefusedError:
            tally.refused += 1
        except (OSError, EOFError, TimeoutError):
            tally.failed_on.append(pid)


async def load(address: tuple[str, int], victim: int) -> Tally:
    """Sixteen clients; once all workers have answered, `victim` is killed, and once another has
    answered for a while, it is over.
    """
    tally, over = Tally(), asyncio.Event()

    async def answering(workers: int, times: int) -> None:
        async with asyncio.timeout(DEADLINE):
            while sum(count >= times for count in tally.answers.values()) < workers:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        for number in range(16):
            group.create_task(client(address, over, tally, kept=number % 2 == 0))
        try:
            await answering(workers=2, times=100)
            os.kill(victim, signal.SIGKILL)
            await answering(workers=3, times=100)
        finally:
            over.set()
    return tally


def test_only_connections_of_the_killed_worker_fail(servd: Servd) -> None:
    config = '[services.web]\napp = "main:app"\nlisten = "127.0.0.1:0"\nworkers = 2\n'
    daemon = servd(config, main_py=PID_IN_A_CHUNK).ready()
    host, port = daemon.url("web").removeprefix("http://").split(":")
    victim, survivor = daemon.workers("web")[0], daemon.workers("web")[1]
    tally = asyncio.run(load((host, int(port)), victim))
    replacement = daemon.workers("web")[0]
    assert replacement != victim
    assert set(tally.answers) == {victim, survivor, replacement}
    assert tally.refused == 0
    # those that had been answered by the victim, and new ones that it had just accepted
    assert len([pid for pid in tally.failed_on if pid is not None]) <= 8
    assert set(tally.failed_on) <= {victim, None}
    assert len(tally.failed_on) <= 16
    first = daemon.find("worker ready", pid=victim)[0]["seconds"]
    again = daemon.find("worker ready", pid=replacement)[0]["seconds"]
    died = daemon.find("worker exited", pid=victim)[0]
    assert died["next_action"] == "restarting"
    assert again < max(4 * first, 5.0)
    assert daemon.stop() == 0
