"""`limits.concurrency` and `limits.queue`."""

from __future__ import annotations

import asyncio
import socket
from urllib.parse import urlsplit

import httpx

from support.harness import DEADLINE, Servd, ServdProcess, wait_until

APP = """
    import asyncio

    gate = asyncio.Event()
    begun = 0

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        global begun
        body = b"ok"
        if scope["path"] == "/wait":
            begun += 1
            await gate.wait()
        elif scope["path"] == "/open" or scope["query_string"] == b"open":
            gate.set()
        elif scope["path"] == "/begun":
            body = str(begun).encode()
        elif scope["path"] == "/work":
            await asyncio.sleep(0.05)
        await send({"type": "http.response.start", "status": 200,
                    "headers": [(b"content-length", str(len(body)).encode())]})
        await send({"type": "http.response.body", "body": body})
        if scope["path"] == "/background":
            await gate.wait()
            print("background done", flush=True)
"""


def serve(servd: Servd, limits: str) -> ServdProcess:
    return servd(
        f"""
        [services.web]
        app = "main:app"
        listen = "127.0.0.1:0"
        limits = {{ {limits} }}
        log.access = false
        """,
        main_py=APP,
    ).ready()


def test_over_concurrency_and_queue_requests_are_turned_away_at_once(servd: Servd) -> None:
    daemon = serve(servd, "concurrency = 2, queue = 1")
    url = daemon.url("web")
    with daemon.asking("web", "/wait", times=3) as held:
        wait_until(
            lambda: daemon.metric("servd_requests_queued", service="web") == 1, "one request waits"
        )
        assert daemon.metric("servd_requests_in_flight", service="web") == 3

        refused = httpx.get(f"{url}/wait", timeout=DEADLINE)
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["content-type"] == "application/problem+json"
        assert httpx.get(f"{url}/metrics", timeout=DEADLINE).status_code == 200

        assert (
            daemon.metric("servd_requests_rejected_total", reason="concurrency", service="web") == 1
        )
        # a health path is exempt too, from the moment that there is one
        daemon.edit((daemon.folder / "servd.toml").read_text() + 'health.path = "/open"\n')
        assert daemon.reload()["outcome"] == "applied"
        assert httpx.get(f"{url}/open", timeout=DEADLINE).status_code == 200
        assert [answer.result().status_code for answer in held] == [200, 200, 200]
    assert daemon.metric("servd_requests_queued", service="web") == 0


def test_a_client_that_leaves_the_queue_takes_no_place(servd: Servd) -> None:
    daemon = serve(servd, "concurrency = 1, queue = 10")
    url = daemon.url("web")
    with daemon.asking("web", "/wait") as (held,):
        daemon.begun("web")
        place = urlsplit(url)
        for waiting in range(1, 4):
            with socket.create_connection((place.hostname, place.port), DEADLINE) as leaves:
                leaves.sendall(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n")
                wait_until(
                    lambda: daemon.metric("servd_requests_queued", service="web") == waiting,  # noqa: B023
                    "it waits in the queue",
                )
        assert daemon.metric("servd_requests_queued", service="web") == 3
        assert httpx.get(f"{url}/metrics?open", timeout=DEADLINE).status_code == 200  # exempt
        assert held.result().status_code == 200
    assert httpx.get(f"{url}/begun", timeout=DEADLINE).text == "1"
    assert daemon.metric("servd_requests_total", code="499", method="GET", service="web") == 3


def test_requests_that_time_out_while_they_wait_leave_no_trace(servd: Servd) -> None:
    """All of them at once, so that places change hands while those who waited leave."""
    daemon = servd(
        """
        [services.web]
        app = "main:app"
        listen = "127.0.0.1:0"
        limits = { concurrency = 2, queue = 50 }
        timeouts.request = "2s"
        """,
        main_py=APP,
    ).ready()
    url = daemon.url("web")

    async def burst() -> list[int]:
        async with httpx.AsyncClient(base_url=url, timeout=DEADLINE) as client:
            answers = await asyncio.gather(*(client.get("/wait") for _ in range(30)))
        return [answer.status_code for answer in answers]

    assert asyncio.run(burst()) == [504] * 30
    assert httpx.get(f"{url}/work").status_code == 200
    assert daemon.metric("servd_requests_total", code="504", method="GET", service="web") == 30
    assert daemon.metric("servd_requests_in_flight", service="web") == 0
    assert "exception" not in daemon.output


def test_paths_are_meant_without_the_root_path(servd: Servd) -> None:
    daemon = servd(
        """
        [services.web]
        app = "main:app"
        listen = "127.0.0.1:0"
        root_path = "/api"
        limits = { concurrency = 1 }
        log.skip_paths = ["/work"]
        """,
        main_py=APP.replace('scope["path"]', 'scope["path"].removeprefix("/api")'),
    ).ready()
    url = daemon.url("web")
    assert httpx.get(f"{url}/work").status_code == 200
    with daemon.asking("web", "/wait") as (held,):
        daemon.begun("web")
        assert httpx.get(f"{url}/work").status_code == 503
        assert httpx.get(f"{url}/metrics?open").status_code == 200
        assert held.result().status_code == 200
    daemon.wait_for("request", **{"url.path": "/api/wait"})
    skipped = daemon.find("request", **{"url.path": "/api/work"})
    assert [e["http.response.status_code"] for e in skipped] == []


def test_what_goes_on_after_its_answer_takes_no_place(servd: Servd) -> None:
    daemon = serve(servd, "concurrency = 1, queue = 0")
    for _ in range(3):
        assert daemon.get("web", "/background").status_code == 200
    assert daemon.get("web", "/begun").status_code == 200
    assert daemon.get("web", "/open").status_code == 200
    wait_until(lambda: len(daemon.lines("background done")) == 3, "all have gone on")
    with daemon.asking("web", "/work", times=3) as answers:
        pass
    assert 200 in {answer.result().status_code for answer in answers}
