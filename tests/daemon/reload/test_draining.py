"""WebSockets, event streams and slow requests through a roll."""

from __future__ import annotations

import contextlib
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import ClientConnection, connect

from support.apps import LASTING
from support.harness import DEADLINE, Servd, ServdProcess, wait_until


def config(value: int, drain: str) -> str:
    return f"""
        [services.web]
        app = "main:app"
        listen = "127.0.0.1:0"
        env = {{ V = "{value}" }}
        timeouts = {{ drain = "{drain}" }}
    """


def open_socket(daemon: ServdProcess) -> ClientConnection:
    return connect(daemon.url("web").replace("http", "ws") + "/echo", open_timeout=DEADLINE)


def waits_for(daemon: ServdProcess, what: str) -> None:
    """The status says what the one draining generation waits for, once its worker has said it."""

    def look() -> bool:
        (draining,) = daemon.service("web")["draining"]
        assert draining["waiting_for"] in (what, "its exit")
        return bool(draining["waiting_for"] == what)

    wait_until(look, f"the old generation waits for {what}")


def test_a_websocket_is_closed_with_1012_at_the_deadline_and_not_before(servd: Servd) -> None:
    daemon = servd(config(1, "2s"), main_py=LASTING).ready()
    with open_socket(daemon) as socket:
        started = time.monotonic()
        answer = daemon.reload(config(2, "2s"))
        assert answer["outcome"] == "applied"
        applied = time.monotonic()
        socket.send("still there")
        assert socket.recv(DEADLINE) == "still there"
        waits_for(daemon, "1 websocket")
        with pytest.raises(ConnectionClosedError) as closed:
            socket.recv(DEADLINE)
    assert time.monotonic() - started >= 2.0
    assert time.monotonic() - applied >= 1.5
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    wait_until(lambda: not daemon.service("web")["draining"], "the old generation has ended")
    assert daemon.stop() == 0


def test_an_event_stream_ends_cleanly_at_the_deadline_and_not_before(servd: Servd) -> None:
    daemon = servd(config(1, "1500ms"), main_py=LASTING).ready()
    with httpx.stream("GET", daemon.url("web") + "/ticks", timeout=DEADLINE) as answer:
        lines = answer.iter_lines()
        assert next(lines) == "data: tick"
        assert daemon.reload(config(2, "1500ms"))["outcome"] == "applied"
        started = time.monotonic()
        waits_for(daemon, "1 event stream")
        assert set(lines) == {"data: tick", ""}  # a broken-off response would raise here
    assert time.monotonic() - started >= 1.0
    daemon.wait_for_line("stream ended")  # the app's own clean-up ran
    assert not [e for e in daemon.events if "exception" in e]
    assert daemon.stop() == 0


def test_a_download_that_is_cut_does_not_pass_for_whole(servd: Servd) -> None:
    daemon = servd(config(1, "500ms"), main_py=LASTING).ready()
    url = daemon.url("web") + "/ticks?media=application/octet-stream"
    with httpx.stream("GET", url, timeout=DEADLINE) as answer:
        chunks = answer.iter_raw()
        next(chunks)
        assert daemon.reload(config(2, "500ms"))["outcome"] == "applied"
        with pytest.raises(httpx.RemoteProtocolError):
            list(chunks)


def test_a_request_in_flight_is_answered_by_the_old_generation(servd: Servd) -> None:
    daemon = servd(config(1, "10s"), main_py=LASTING).ready()
    with daemon.asking("web", "/slow?seconds=1.5") as (answer,):
        daemon.wait_for_line("slow begins", generation=1)
        assert daemon.reload(config(2, "10s"))["outcome"] == "applied"
        assert daemon.get("web").json() == "2"
    assert answer.result().json() == "1"


def test_a_third_generation_cuts_websockets(servd: Servd) -> None:
    daemon = servd(config(1, "30s"), main_py=LASTING).ready()
    with contextlib.ExitStack() as stack:
        sockets = []
        for value in range(2, 5):
            sockets.append(stack.enter_context(open_socket(daemon)))
            sockets[-1].send("x")
            assert sockets[-1].recv(DEADLINE) == "x"
            assert daemon.reload(config(value, "30s"))["outcome"] == "applied"
            assert len(daemon.service("web")["draining"]) <= 2
        with pytest.raises(ConnectionClosedError) as closed:
            sockets[0].recv(DEADLINE)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        for socket in sockets[1:]:
            socket.send("still there")
            assert socket.recv(DEADLINE) == "still there"
        assert [drain["generation"] for drain in daemon.service("web")["draining"]] == [2, 3]
    assert daemon.stop() == 0


HELD = """
    import asyncio, os
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/held")
    async def held(until: str):
        while not os.path.exists(until):
            await asyncio.sleep(0.01)
        return os.environ["V"]

    @app.get("/")
    async def value():
        return os.environ["V"]
"""

OTHER = """
        [services.other]
        app = "main:app"
        env = { V = "other" }
"""


class HeldRequests:
    """Three generations, of which two that drain answer a request each until `first`, `second`."""

    def __init__(self, daemon: ServdProcess, pool: ThreadPoolExecutor) -> None:
        self.daemon = daemon
        self.answers = []
        for number, until in enumerate(("first", "second"), 1):
            url = f"{daemon.url('web')}/held?until={until}"
            self.answers.append(pool.submit(httpx.get, url, timeout=DEADLINE))
            self._has_begun(number)
            more = config(number + 1, "10m") + OTHER
            assert daemon.reload(more)["outcome"] == "applied"
            waits_for_all(daemon, ["1 request"] * number)

    def _has_begun(self, number: int) -> None:
        def busy() -> bool:
            processes = self.daemon.service("web")["processes"]
            return bool(processes) and processes[0]["in_flight"] == 1

        wait_until(busy, f"request {number} has begun")


def waits_for_all(daemon: ServdProcess, what: list[str]) -> None:
    """The status says what the draining generations wait for."""

    def look() -> bool:
        return [drain["waiting_for"] for drain in daemon.service("web")["draining"]] == what

    wait_until(look, f"the old generations wait for {what}")


def test_a_third_reload_waits_for_a_request_and_others_overtake_it(servd: Servd) -> None:
    daemon = servd(config(1, "10m") + OTHER, main_py=HELD).ready()
    with ThreadPoolExecutor(4) as pool:
        held = HeldRequests(daemon, pool)
        daemon.edit(config(4, "10m") + OTHER)
        command = pool.submit(daemon.cli, "reload")
        waits = daemon.wait_for("reload waits", service="web")
        assert waits["reason"] == "web generation 1 answers 1 request, 10m left"
        assert daemon.status()["state"] == "running"
        notice = f"a reload waits: {waits['reason']}"
        assert daemon.service("web")["notices"] == [notice]
        assert notice in daemon.cli("status").stdout
        assert daemon.get("web").json() == "3"
        assert daemon.act("other", "scale", workers=2)["outcome"] == "applied"  # it overtakes
        daemon.edit(config(5, "10m") + OTHER)
        joined = pool.submit(daemon.ask, "POST", "/v1/reload", json={})
        wait_until(lambda: len(daemon.find("reload started", reason=JOINED)) > 0, "it has joined")
        assert not command.done()
        (servd.folder / "second").touch()
        assert joined.result().json()["outcome"] == "applied"
        assert f"reload waits: {waits['reason']}" in command.result().stderr
        assert command.result().returncode == 0
        assert held.answers[1].result().json() == "2"
        assert daemon.get("web").json() == "5"
        assert daemon.service("web")["notices"] == []
        assert not held.answers[0].done()
        (servd.folder / "first").touch()
        assert held.answers[0].result().json() == "1"
    assert not daemon.find("drain cut short")
    assert daemon.stop() == 0


JOINED = "the admin API"


def test_a_reload_that_must_not_wait_cuts_the_oldest(servd: Servd) -> None:
    daemon = servd(config(1, "10m") + OTHER, main_py=HELD).ready()
    with ThreadPoolExecutor(4) as pool:
        held = HeldRequests(daemon, pool)
        waiting = pool.submit(daemon.ask, "POST", "/v1/services/web/restart", json={})
        daemon.wait_for("reload waits", service="web")
        assert daemon.cli("restart", "web", "--now").returncode == 0
        assert waiting.result().json()["outcome"] == "applied"
        with pytest.raises(httpx.RemoteProtocolError):
            held.answers[0].result()
        (servd.folder / "second").touch()
        assert held.answers[1].result().json() == "2"
    assert daemon.find("drain cut short", generation=1)
    assert daemon.stop() == 0


def test_a_stop_ends_a_reload_that_waits(servd: Servd) -> None:
    daemon = servd(config(1, "10m") + OTHER, main_py=HELD).ready()
    with ThreadPoolExecutor(4) as pool:
        held = HeldRequests(daemon, pool)
        daemon.edit(config(4, "10m") + OTHER)
        waiting = pool.submit(daemon.ask, "POST", "/v1/reload", json={})
        daemon.wait_for("reload waits", service="web")
        daemon.send(signal.SIGTERM)
        assert waiting.result().json()["detail"] == "servd is stopping"
        daemon.wait_for("stopping")
        for name in ("first", "second"):
            (servd.folder / name).touch()
        assert [answer.result().json() for answer in held.answers] == ["1", "2"]
    assert daemon.wait() == 0


def test_wait_drained_waits_for_the_old_generation(servd: Servd) -> None:
    daemon = servd(config(1, "1s"), main_py=LASTING).ready()
    with open_socket(daemon):
        started = time.monotonic()
        assert daemon.reload(config(2, "1s"), wait_drained=True)["outcome"] == "applied"
        assert time.monotonic() - started >= 1.0
        assert daemon.service("web")["draining"] == []
