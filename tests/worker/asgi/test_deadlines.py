"""`timeouts.request` and `timeouts.request_total`."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from support.harness import DEADLINE, Servd, ServdProcess, servd_for, wait_until

APP = """
    import asyncio, threading
    from fastapi import FastAPI, Request
    from fastapi.responses import StreamingResponse

    app = FastAPI()
    goes_on, let_go = asyncio.Event(), threading.Event()

    @app.get("/quick")
    async def quick():
        return "done"

    @app.get("/slow")
    async def slow():
        try:
            await asyncio.sleep(30)
        finally:
            print("slow: finally", flush=True)

    @app.get("/sleeps")
    async def sleeps(seconds: float):
        await asyncio.sleep(seconds)

    @app.get("/later")
    async def later(seconds: float):
        asyncio.get_running_loop().call_later(seconds, lambda: print("it is later", flush=True))

    @app.get("/stubborn")
    async def stubborn():
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            await asyncio.sleep(0.2)
            print("stubborn: cleaned up", flush=True)
            return "too late"

    @app.get("/stream")
    async def stream(pause: float, parts: int):
        async def produce():
            try:
                for number in range(parts):
                    yield f"{number}\\n"
                    await asyncio.sleep(pause)
            finally:
                print("stream: finally", flush=True)
        return StreamingResponse(produce())

    @app.get("/half")
    async def half():
        async def produce():
            yield "0\\n"
            print("half: begun", flush=True)
            await goes_on.wait()
            yield "1\\n"
        return StreamingResponse(produce())

    @app.get("/goes-on")
    async def go_on():
        goes_on.set()

    @app.post("/upload")
    async def upload(request: Request):
        return len(await request.body())

    @app.get("/thread")
    def thread(held: bool):
        if held:
            print("thread: held", flush=True)
            let_go.wait()
        return "done"

    @app.get("/let-go")
    async def let_it_go():
        let_go.set()
"""


def events(daemon: ServdProcess, path: str, count: int) -> list[dict[str, Any]] | None:
    """The last `count` events of requests for `path`, once there are as many."""
    found = daemon.find("request", **{"url.path": path})
    return found[-count:] if len(found) >= count else None


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServdProcess]:
    """One daemon for the tests that leave it as they found it."""
    folder: Path = tmp_path_factory.mktemp("timeouts")
    for servd in servd_for(folder):
        yield serve(servd, request="2s", total="5s", keep_alive="60s")


def serve(
    servd: Servd, request: str, total: str = "none", keep_alive: str = "1s", extra: str = ""
) -> ServdProcess:
    return servd(
        f"""
        [services.web]
        app = "main:app"
        listen = "127.0.0.1:0"
        timeouts.request = "{request}"
        timeouts.request_total = "{total}"
        timeouts.keep_alive = "{keep_alive}"
        {extra}
        """,
        main_py=APP,
    ).ready()


def at_once(daemon: ServdProcess, *paths: str) -> list[httpx.Response]:
    with ThreadPoolExecutor(len(paths)) as pool:
        return list(pool.map(lambda path: daemon.get("web", path), paths))


def after(event: dict[str, Any]) -> float:
    """The seconds that a request had taken when it was given up, as a line says at its end."""
    return float(str(event["event"]).rsplit(" ", 2)[1])


def given_up(daemon: ServdProcess, said: str, count: int) -> dict[str, float]:
    """After how many seconds requests were given up, by their ids, once `count` are in the log."""

    def look() -> dict[str, float] | None:
        found = [e for e in daemon.events if str(e.get("event")).startswith(f"{said} after ")]
        seconds = {event["request_id"]: after(event) for event in found}
        return seconds if len(seconds) >= count else None

    seconds: dict[str, float] = wait_until(look, f"{count} lines: {said}")
    return seconds


def test_a_request_that_takes_too_long_is_answered_504_in_time(served: ServdProcess) -> None:
    """In time: as exactly as a task that sleeps in the same loop at the same time wakes up."""
    answers = at_once(served, *["/slow", "/sleeps?seconds=1.9"] * 5)[::2]
    assert len(answers) == 5
    for answer in answers:
        assert answer.status_code == 504
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert (problem["status"], problem["title"]) == (504, "Gateway Timeout")
        assert problem["request_id"] == answer.headers["x-request-id"]
    logged = wait_until(lambda: events(served, "/slow", 5), "the events of the requests")
    slept = wait_until(lambda: events(served, "/sleeps", 5), "the events of those that sleep")
    took = [event["duration_ms"] for event in logged]
    assert len(took) == 5
    assert min(took) >= 2000
    assert min(took) < max(event["duration_ms"] for event in slept) + 150
    assert [event["http.response.status_code"] for event in logged] == [504] * 5
    said = given_up(served, "request timed out: GET /slow", 5)
    for event in logged:
        assert 2.0 <= said[event["request_id"]] <= event["duration_ms"] / 1000 + 0.05


def test_a_request_that_timed_out_runs_its_finally_blocks(
    served: ServdProcess,
) -> None:
    before = len(served.lines("slow: finally"))
    assert served.get("web", "/slow").status_code == 504
    wait_until(lambda: len(served.lines("slow: finally")) > before, "the finally block")


def test_an_app_that_answers_after_its_time_is_not_heard(served: ServdProcess) -> None:
    with httpx.Client(base_url=served.url("web"), timeout=DEADLINE) as client:
        assert client.get("/stubborn").status_code == 504
        served.wait_for_line("stubborn: cleaned up")
        assert client.get("/quick").json() == "done"  # on the same connection


def test_a_response_that_has_begun_counts_to_its_first_byte_only(servd: Servd) -> None:
    served = serve(servd, request="2s")
    assert served.get("web", "/quick").json() == "done"
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(served.get, "web", "/half")
        served.wait_for("half: begun")
        assert served.get("web", "/slow").status_code == 504  # its time began later
        assert not asked.done()
        assert served.get("web", "/goes-on").status_code == 200
        assert asked.result().text == "0\n1\n"


def test_the_whole_of_a_response_is_bounded_by_request_total(served: ServdProcess) -> None:
    """As exactly as another response wakes up that sleeps for almost as long, at the same time."""
    before = len(served.lines("stream: finally"))

    def took(path: str, ends: bool) -> float:
        began = time.monotonic()
        if ends:
            served.get("web", path)
        else:
            with pytest.raises(httpx.RemoteProtocolError):
                served.get("web", path)
        return time.monotonic() - began

    with ThreadPoolExecutor(2) as pool:
        slept = pool.submit(took, "/stream?pause=4.5&parts=1", True)
        cut = pool.submit(took, "/stream?pause=0.2&parts=1000", False)
        assert 4.9 < cut.result() < slept.result() + 2.0
    wait_until(lambda: len(served.lines("stream: finally")) >= before + 2, "the finally blocks")
    (seconds,) = given_up(served, "response aborted: GET /stream", 1).values()
    assert 5.0 <= seconds < cut.result() + 0.05


def test_a_thread_that_hangs_is_left_and_its_worker_replaced(servd: Servd) -> None:
    daemon = serve(servd, request="2s")
    (before,) = daemon.pids("web")
    answer = daemon.get("web", "/thread?held=true")
    assert answer.status_code == 504
    daemon.wait_for("worker recycle requested", reason="stuck")
    daemon.wait_for("worker recycled", reason="stuck")
    wait_until(lambda: daemon.pids("web") not in ([], [before]), "another worker")
    assert daemon.get("web", "/quick").json() == "done"
    wait_until(lambda: not Path(f"/proc/{before}").exists(), "the end of the stuck worker")
    assert daemon.service("web")["restarts"] == 0
    assert daemon.stop() == 0
    assert not daemon.find("worker killed")


def test_work_that_never_got_a_thread_is_not_stuck(servd: Servd) -> None:
    """Both are late, but the one thread is free again soon: nothing is wrong with the worker."""
    daemon = serve(servd, request="2s", extra="threads = 1\n        limits.max_requests = 6")
    assert [a.status_code for a in at_once(daemon, *["/thread?held=true"] * 2)] == [504, 504]
    assert daemon.get("web", "/let-go").status_code == 200
    assert daemon.get("web", "/thread?held=false").json() == "done"
    waited = given_up(daemon, "request timed out: GET /thread", 2).values()
    # a request that was given up may go on for as long again: it is looked at before this
    assert daemon.get("web", f"/later?seconds={max(waited) + 0.1}").status_code == 200
    daemon.wait_for_line("it is later")
    assert daemon.get("web", "/quick").json() == "done"
    # the sixth request: a worker names the first of its reasons only
    assert daemon.wait_for("worker recycle requested")["reason"] == "max_requests"


def test_requests_that_are_cut_at_the_end_of_a_drain_leave_no_traceback(servd: Servd) -> None:
    daemon = servd(
        """
        [services.web]
        app = "main:app"
        listen = "127.0.0.1:0"
        timeouts = { drain = "300ms" }
        """,
        main_py=APP,
    ).ready()
    with daemon.asking("web", "/slow", times=2) as asked:
        wait_until(
            lambda: daemon.service("web")["processes"][0]["in_flight"] == 2, "the requests began"
        )
        daemon.stop()
        assert all(isinstance(each.exception(), httpx.TransportError) for each in asked)
    assert daemon.lines("drain timeout: aborted 2 requests")
    assert len(daemon.lines("slow: finally")) == 2
    assert "Traceback" not in daemon.output


@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_an_upload_goes_on_after_an_early_answer(servd: Servd, http: str) -> None:
    """The client hears the 504, though it reads it when all is sent, after the keep-alive time."""
    daemon = serve(servd, request="300ms", extra=f'uvicorn = {{ http = "{http}" }}')
    place = urlsplit(daemon.url("web"))
    with socket.create_connection((place.hostname, place.port), timeout=DEADLINE) as client:
        client.sendall(b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 2500000\r\n\r\n")
        for _ in range(25):
            client.sendall(b"x" * 100_000)
            time.sleep(0.1)
        assert client.recv(100).startswith(b"HTTP/1.1 504 ")
