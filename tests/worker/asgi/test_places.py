"""With `limits.concurrency`, no request waits or is refused while another worker is idle."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest

from support.harness import DEADLINE, Servd, ServdProcess, wait_until

APP = """
    import asyncio
    import os

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        if scope["path"] == "/wait":
            open(f"begun-{scope['query_string'].decode()}", "w").close()
            while not os.path.exists("go"):
                await asyncio.sleep(0.01)
        body = b"%8d" % os.getpid()
        await send({"type": "http.response.start", "status": 200,
                    "headers": [(b"content-length", b"8")]})
        await send({"type": "http.response.body", "body": body})
"""
CONFIG = """
    [services.web]
    app = "main:app"
    workers = {workers}
    listen = ["127.0.0.1:0", "unix:{folder}/web.sock"]
    limits = {{ concurrency = 1, queue = {queue} }}
    watchdog = "none"
    health.path = "/healthz"
    {more}
"""


def serve(servd: Servd, workers: int, queue: int = 0, more: str = "") -> ServdProcess:
    config = CONFIG.format(workers=workers, folder=servd.folder, queue=queue, more=more)
    return servd(config, main_py=APP).ready()


class Client:
    """One connection."""

    def __init__(self, daemon: ServdProcess, kind: str = "tcp") -> None:
        if kind == "unix":
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(DEADLINE)
            self.sock.connect(str(daemon.folder / "web.sock"))
        else:
            url = httpx.URL(daemon.url("web"))
            self.sock = socket.create_connection((url.host, url.port or 0), DEADLINE)

    def send(self, target: str) -> None:
        self.sock.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    def answer(self) -> tuple[int, bytes, bytes]:
        """Status, head and body of the next answer."""
        said = b""
        while b"\r\n\r\n" not in said:
            part = self.sock.recv(4096)
            assert part
            said += part
        head, _, body = said.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        assert length
        while len(body) < int(length[1]):
            body += self.sock.recv(4096)
        return int(head.split()[1]), head, body

    def pid(self) -> int:
        self.send("/")
        return int(self.answer()[2])


@pytest.fixture
def clients() -> Iterator[contextlib.ExitStack]:
    """Closes the connections of a test."""
    with contextlib.ExitStack() as stack:
        yield stack


def connected(stack: contextlib.ExitStack, daemon: ServdProcess, kind: str = "tcp") -> Client:
    client = Client(daemon, kind)
    stack.enter_context(client.sock)
    return client


def hold(stack: contextlib.ExitStack, daemon: ServdProcess, name: str, kind: str = "tcp") -> Client:
    """A client whose request takes a place until `release`."""
    client = connected(stack, daemon, kind)
    client.send(f"/wait?{name}")
    wait_until((daemon.folder / f"begun-{name}").exists, f"{name} has a place")
    return client


def release(daemon: ServdProcess) -> None:
    (daemon.folder / "go").touch()


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("queue", [0, 10])
def test_new_connections_go_to_workers_with_a_free_place(
    servd: Servd, clients: contextlib.ExitStack, kind: str, queue: int
) -> None:
    """One has more connections than another, and its place is free."""
    daemon = serve(servd, 3, queue)
    idle = [connected(clients, daemon, kind) for _ in range(4)]
    for client in idle:
        client.pid()
    held = [hold(clients, daemon, str(n), kind) for n in range(3)]
    over = connected(clients, daemon, kind)
    if queue == 0:  # all are full
        over.send("/")
        assert over.answer()[0] == 503
        over.send("/metrics")
        assert over.answer()[0] == 200
    release(daemon)
    answers = [client.answer() for client in held]
    assert [status for status, _, _ in answers] == [200] * 3
    assert len({body for _, _, body in answers}) == 3


def test_as_many_at_once_as_there_are_places_find_one_each(
    servd: Servd, clients: contextlib.ExitStack
) -> None:
    daemon = serve(servd, 3)
    for round_ in range(5):
        held = [connected(clients, daemon) for _ in range(3)]
        for n, client in enumerate(held):
            client.send(f"/wait?{round_}-{n}")
        begun = [daemon.folder / f"begun-{round_}-{n}" for n in range(3)]
        wait_until(lambda: all(path.exists() for path in begun), "all have a place")  # noqa: B023
        release(daemon)
        assert len({client.answer()[2] for client in held}) == 3
        (daemon.folder / "go").unlink()


def pair_on_one_worker(stack: contextlib.ExitStack, daemon: ServdProcess) -> tuple[Client, Client]:
    """Two kept connections to the same worker."""
    kept = [connected(stack, daemon) for _ in range(4)]
    pids = {client: client.pid() for client in kept}
    ((most, _),) = Counter(pids.values()).most_common(1)
    first, second, *_ = [client for client in kept if pids[client] == most]
    return first, second


@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_a_kept_connection_to_a_full_worker_waits_and_moves(
    servd: Servd, clients: contextlib.ExitStack, http: str
) -> None:
    daemon = serve(servd, 2, more=f'uvicorn.http = "{http}"')
    first, second = pair_on_one_worker(clients, daemon)
    first.send("/wait?first")
    wait_until((daemon.folder / "begun-first").exists, "the worker is full")
    second.send("/")
    wait_until(lambda: daemon.metric("servd_requests_queued", service="web") == 1, "it waits")
    release(daemon)
    status, head, _ = first.answer()
    assert (status, b"connection: close" in head) == (200, False)
    status, head, _ = second.answer()
    assert (status, b"connection: close" in head) == (200, True)
    assert second.sock.recv(1) == b""
    assert first.pid() > 0


def test_kept_connections_stay_while_all_are_full(
    servd: Servd, clients: contextlib.ExitStack
) -> None:
    daemon = serve(servd, 2, queue=1)
    first, second = pair_on_one_worker(clients, daemon)
    first.send("/wait?first")
    wait_until((daemon.folder / "begun-first").exists, "the worker is full")
    other = hold(clients, daemon, "other")
    second.send("/")
    wait_until(lambda: daemon.metric("servd_requests_queued", service="web") == 1, "it waits")
    release(daemon)
    for client in (first, second, other):
        status, head, _ = client.answer()
        assert (status, b"connection: close" in head) == (200, False)


def test_a_stopped_worker_that_was_free_holds_nothing_up(
    servd: Servd, clients: contextlib.ExitStack
) -> None:
    daemon = serve(servd, 2, queue=10)
    probe = connected(clients, daemon)
    stopped = probe.pid()
    os.kill(stopped, signal.SIGSTOP)
    try:
        held = hold(clients, daemon, "held")
        more = [connected(clients, daemon) for _ in range(3)]
        for client in more:
            client.send("/")
        wait_until(
            lambda: daemon.metric("servd_requests_queued", service="web") == 3,
            "the other takes them all",
        )
        more.append(connected(clients, daemon))
        more[-1].send("/healthz")
        assert more.pop().answer()[0] == 200
        release(daemon)
        assert {int(client.answer()[2]) for client in [held, *more]} == {*daemon.pids("web")} - {
            stopped
        }
    finally:
        os.kill(stopped, signal.SIGCONT)
