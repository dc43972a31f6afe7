"""`warmup`: requests that a worker answers well before it accepts others."""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from support.harness import DEADLINE, Servd, command, free_port, wait_until

MODEL = """
    import json, os, threading, time
    from fastapi import FastAPI, Request, Response
    from fastapi.responses import StreamingResponse

    app = FastAPI()
    warm = 0

    @app.post("/predict")
    async def predict(request: Request):
        global warm
        body = await request.json()
        if body["wait"]:
            print("waiting", flush=True)
            while os.path.exists("wait.file"):
                time.sleep(0.01)
        warm += 1
        print("predicted", warm, body, request.headers["x-key"], flush=True)
        if warm == body.get("fails_at"):
            return Response("CUDA out of\\nmemory" + 1000 * "!", 500)
        if body.get("dies"):
            os._exit(7)
        async def tokens():
            yield b"a"
            yield b"b"
        return StreamingResponse(tokens())

    @app.get("/")
    async def root():
        return {"warm": warm, "pid": os.getpid()}
"""

CONFIG = """
    [services.web]
    app = "main:app"
    listen = "127.0.0.1:0"
    workers = {workers}
    env = {{ A = "{a}" }}
    warmup = {{ request = "warm.http", times = 3, timeout = "{timeout}" }}
"""


def config(a: int = 1, workers: int = 1, timeout: str = "60s") -> str:
    return CONFIG.format(a=a, workers=workers, timeout=timeout)


def request_file(**body: object) -> str:
    return f"# warms\nPOST /predict\nX-Key: k\n\n{json.dumps({'wait': False, **body})}\n"


def test_no_request_comes_to_a_worker_that_is_not_warm(servd: Servd) -> None:
    port = free_port()
    servd.write(warm_http=request_file(wait=True), wait_file="")
    daemon = servd(config().replace(":0", f":{port}"), main_py=MODEL)
    daemon.wait_for("worker started")
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(httpx.get, f"http://127.0.0.1:{port}/", timeout=DEADLINE)
        wait_until(lambda: daemon.lines("waiting"), "the warm-up has begun")
        assert daemon.service("web")["state"] == "starting"
        assert not answer.done()
        os.remove(servd.folder / "wait.file")
        assert answer.result().json()["warm"] == 3


def test_a_worker_that_fails_its_warm_up_undoes_the_reload(servd: Servd) -> None:
    servd.write(warm_http=request_file())
    daemon = servd(config(), main_py=MODEL).ready()
    first = daemon.get("web").json()
    assert first["warm"] == 3
    assert daemon.find("worker warmed up", requests=3)
    assert not daemon.find("request", **{"url.path": "/predict"})
    assert daemon.metric("servd_requests_total", service="web") in (None, 1.0)
    servd.write(warm_http=request_file(fails_at=2))
    report = daemon.reload(config(a=2))
    assert report["outcome"] == "rolled_back"
    said = "warm-up request 2 of 3: POST /predict returned 500: CUDA out of memory!!!"
    assert said in report["detail"]
    assert len(report["detail"]) < 600
    assert daemon.get("web").json() == first
    assert daemon.stop() == 0


def test_a_worker_that_replaces_a_dead_one_is_warm_by_the_file_as_it_is_now(servd: Servd) -> None:
    servd.watching = True
    servd.write(warm_http=request_file())
    daemon = servd(config(), main_py=MODEL).ready()
    servd.write(warm_http=request_file(new="new"))
    daemon.wait_for("reload finished", outcome="applied")
    (pid,) = daemon.pids("web")
    assert daemon.get("web").json()["pid"] == pid  # nothing was rolled
    os.kill(pid, signal.SIGKILL)
    other = wait_until(lambda: [p for p in daemon.pids("web") if p != pid], "another worker")
    answer = daemon.get("web").json()
    assert (answer["warm"], answer["pid"]) == (3, other[0])
    assert "'new': 'new'" in daemon.output
    assert daemon.stop() == 0


def test_a_warm_up_that_takes_too_long_or_ends_the_worker_is_named(servd: Servd) -> None:
    servd.write(warm_http=request_file())
    daemon = servd(config(), main_py=MODEL).ready()
    servd.write(warm_http=request_file(wait=True), wait_file="")
    report = daemon.reload(config(a=2, timeout="1s"))
    said = "warm-up request 1 of 3: POST /predict was not answered in time: all of the warm-up may "
    assert said + "take 1 s (warmup.timeout)" in report["detail"]
    servd.write(warm_http=request_file(dies=True))
    report = daemon.reload(config(a=2))
    assert "exited with status 7" in report["detail"]
    assert daemon.stop() == 0


PROGRAM = """
    import http.server, os, sys

    class Handler(http.server.BaseHTTPRequestHandler):
        warm = 0

        def do_POST(self):
            length = int(self.headers["Content-Length"])
            Handler.warm += self.rfile.read(length) == b'{"a": 1}'
            self.send_response(int(os.environ["STATUS"]))
            self.end_headers()
            self.wfile.write(b"no room")

        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"%d" % Handler.warm)

    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_a_command_is_warmed_up_at_its_address(servd: Servd) -> None:
    text = """
        [services.web]
        command = ["python", "program.py", "{{port}}"]
        env = {{ STATUS = "{}" }}
        listen = "127.0.0.1:PORT"
        warmup = {{ request = "warm.http" }}
    """
    servd.write(warm_http='POST /v1\n\n{"a": 1}', program_py=PROGRAM)
    port = free_port()
    text = text.replace("PORT", str(port))
    daemon = servd(text.format(200)).ready()
    assert httpx.get(f"http://127.0.0.1:{port}/", timeout=DEADLINE).text == "1"
    report = daemon.reload(text.format(503))
    assert "warm-up request: POST /v1 returned 503: no room" in report["detail"]
    assert daemon.stop() == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("POST\n", "warm.http:1:1: services.web.warmup.request: expected a request line such as"),
        ("GET /\nnothing\n", "warm.http:2:1: services.web.warmup.request: expected a header such"),
        (None, "services.web.warmup.request: cannot read "),
    ],
)
def test_a_mistake_in_the_file_is_one_of_the_configuration(
    servd: Servd, content: str | None, said: str
) -> None:
    if content is not None:
        servd.write(warm_http=content)
    servd.write(servd_toml=config(), main_py=MODEL)
    found = command("check", folder=servd.folder)
    assert said in found.stdout + found.stderr
    assert found.returncode == 78
