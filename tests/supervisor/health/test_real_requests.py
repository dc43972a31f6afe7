"""`health` with a real request: a worker that answers a path, but cannot do its work, is found."""

from __future__ import annotations

from support.harness import Servd, wait_until

APP = """
    import asyncio, os
    from pathlib import Path

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        body = b""
        while (message := await receive())["more_body"]:
            body += message["body"]
        body += message["body"]
        status = 200
        if scope["path"] == "/predict":
            headers = dict(scope["headers"])
            print(scope["method"], body.decode(), headers[b"content-type"].decode(), flush=True)
            status = 500 if scope["method"] != "POST" else 200
        await send({"type": "http.response.start", "status": status, "headers": []})
        sick = Path("sick").exists() and Path("sick").read_text() == str(os.getpid())
        if sick and scope["path"] == "/predict":
            await asyncio.sleep(3600)  # the head is sent, the engine is stuck
        await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
"""

CONFIG = """
    [services.web]
    app = "main:app"
    listen = "127.0.0.1:0"
    limits.concurrency = 1
    health = {{ {}, interval = "300ms", timeout = "300ms", failures = 2 }}
"""
PING = """\
# one short answer
POST /predict HTTP/1.1

{"text": "hello"}"""


def test_a_worker_whose_answer_does_not_end_is_replaced(servd: Servd) -> None:
    config = CONFIG.format('request = "ping.http", expect = "2xx"')
    daemon = servd(config, main_py=APP, ping_http=PING).ready()
    daemon.wait_for_line('POST {"text": "hello"} application/json')
    (before,) = daemon.pids("web")
    (daemon.folder / "sick").write_text(str(before))
    found = daemon.wait_for("worker recycle requested", reason="health")
    assert found["error"] == "POST /predict was not answered within 0.3 s"
    wait_until(lambda: daemon.pids("web") not in ([], [before]), "another worker")
    wait_until(lambda: daemon.service("web")["state"] == "ready", "the service is well again")
    assert daemon.get("web", "/").text != str(before)
    assert 'code="200",method="POST"' not in daemon.ask("GET", "/metrics").text  # counted nowhere


def test_new_content_of_the_file_applies_to_running_workers(servd: Servd) -> None:
    config = CONFIG.format('request = "ping.http"')
    daemon = servd(config, main_py=APP, ping_http=PING).ready()
    (before,) = daemon.pids("web")
    (daemon.folder / "ping.http").write_text(PING.replace("hello", "again"))
    (change,) = daemon.reload(config)["changes"]
    assert (change["kind"], change["keys"][0]["key"]) == ("live", "health")
    daemon.wait_for_line('POST {"text": "again"} application/json')
    assert daemon.pids("web") == [before]
