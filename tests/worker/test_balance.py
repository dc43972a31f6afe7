"""New connections are spread over the workers of a service, and none waits for a busy one."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import statistics
import threading
import time
from collections import Counter

import httpx
import pytest

from support.harness import DEADLINE, Servd, ServdProcess, wait_until

APP = """
import os, time

async def app(scope, receive, send):
    assert scope["type"] == "http"
    if scope["path"] == "/block":
        open("blocked", "w").close()
        while not os.path.exists("go"):
            time.sleep(0.01)
    said = b"%8d" % os.getpid()
    headers = [(b"content-length", b"8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": said})
"""
CONFIG = """
[services.web]
app = "main:app"
interface = "asgi3"
workers = {workers}
listen = ["127.0.0.1:0", "unix:{folder}/web.sock"]
watchdog = "none"
"""


def connected(daemon: ServdProcess, kind: str) -> socket.socket:
    if kind == "unix":
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(DEADLINE)
        client.connect(str(daemon.folder / "web.sock"))
        return client
    return socket.create_connection(address(daemon), DEADLINE)


def address(daemon: ServdProcess) -> tuple[str, int]:
    url = httpx.URL(daemon.url("web"))
    return url.host, url.port or 0


def pid_of(client: socket.socket) -> int:
    client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    said = b""
    while len(said.partition(b"\r\n\r\n")[2]) < 8:
        part = client.recv(4096)
        assert part
        said += part
    return int(said[-8:])


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_burst_is_spread_over_all_workers(servd: Servd, kind: str) -> None:
    """All of it waits already when they wake; the median is of workers that got no processor."""
    config = CONFIG.format(workers=4, folder=servd.folder)
    daemon = servd(config, main_py=APP).ready()
    most = []
    for _ in range(7):
        with contextlib.ExitStack() as stack:
            for pid in daemon.pids("web"):
                os.kill(pid, signal.SIGSTOP)
            clients = [stack.enter_context(connected(daemon, kind)) for _ in range(32)]
            for pid in daemon.pids("web"):
                os.kill(pid, signal.SIGCONT)
            most.append(max(Counter(map(pid_of, clients)).values()))
    assert statistics.median(most) <= 20, most


def test_one_by_one_each_goes_to_the_worker_with_the_fewest(servd: Servd) -> None:
    """The median is of workers that got no processor: whoever runs takes what they left."""
    config = CONFIG.format(workers=2, folder=servd.folder)
    daemon = servd(config, main_py=APP).ready()
    most = []
    for _ in range(7):
        with contextlib.ExitStack() as stack:
            kept = [stack.enter_context(connected(daemon, "tcp")) for _ in range(8)]
            of = {client: pid_of(client) for client in kept}
            ended = [client for client in kept if of[client] == of[kept[0]]]
            for client in ended:
                client.shutdown(socket.SHUT_WR)
                assert client.recv(1) == b""  # the worker has seen it
                del of[client]
            for _ in ended:
                client = stack.enter_context(connected(daemon, "tcp"))
                of[client] = pid_of(client)
            most.append(max(Counter(of.values()).values()))
            for client in of:
                client.shutdown(socket.SHUT_WR)
                assert client.recv(1) == b""
    assert statistics.median(most) <= 5, most


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_busy_worker_keeps_no_connection_waiting(servd: Servd, kind: str) -> None:
    """It has fewer connections than its sibling, and cannot take any."""
    config = CONFIG.format(workers=2, folder=servd.folder)
    daemon = servd(config, main_py=APP).ready()
    with contextlib.ExitStack() as stack:
        kept = [stack.enter_context(connected(daemon, kind)) for _ in range(20)]
        for client in kept:
            pid_of(client)
        blocking = threading.Thread(target=daemon.get, args=("web", "/block"))
        blocking.start()
        wait_until((daemon.folder / "blocked").exists, "a worker is busy")
        began = time.monotonic()
        more = [stack.enter_context(connected(daemon, kind)) for _ in range(20)]
        assert len({pid_of(client) for client in more}) == 1
        assert time.monotonic() - began < DEADLINE
        (daemon.folder / "go").touch()
        blocking.join()


def test_a_killed_worker_leaves_its_share_to_others(servd: Servd) -> None:
    config = CONFIG.format(workers=2, folder=servd.folder)
    daemon = servd(config, main_py=APP).ready()
    for _ in range(3):
        killed = daemon.pids("web")[0]
        os.kill(killed, signal.SIGKILL)
        wait_until(functools.partial(is_replaced, daemon, killed), "the worker is replaced")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(daemon, "tcp")) for _ in range(16)]
        assert set(map(pid_of, clients)) <= set(daemon.pids("web"))


def is_replaced(daemon: ServdProcess, killed: int) -> bool:
    pids = daemon.pids("web")
    return killed not in pids and len(pids) == 2 and daemon.service("web")["state"] == "ready"
