"""Programs that are no Python: they are started, waited for, replaced and called like anything."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import httpx
import playwright
import pytest

from support.harness import DEADLINE, Servd, wait_until

NODE = Path(playwright.__file__).parent / "driver" / "node"
"""A Node that is surely there: the one that the browser tests bring along."""

BOUND_BY_NODE = """
    const port = Number(process.argv[2]);
    require("http")
      .createServer((_, answer) => answer.end(`${process.env.SERVD_SERVICE} ${process.pid}`))
      .listen(port, "127.0.0.1");
    process.on("SIGTERM", () => process.exit(0));
"""
BOUND_BY_SERVD = """
    const server = require("http").createServer((_, answer) => {
      answer.setHeader("Connection", "close");
      setTimeout(() => answer.end(`${process.env.WORD} ${process.pid}`), 5);
    });
    server.listen({ fd: 3 });
    const close = require("net").Server.prototype.close;
    process.on("SIGTERM", () => close.call(server, () => process.exit(0)));
"""
"""It stops without a loss. `http.Server.close` would destroy connections that Node has accepted and
whose request it has not read yet: seen in Node 26."""


@pytest.fixture
def node(servd: Servd) -> str:
    assert NODE.exists()
    return str(NODE)


def test_a_node_server_on_a_port_that_it_is_told(servd: Servd, node: str) -> None:
    config = f"""
        [services.node]
        command = ["{node}", "server.js", "{{port}}"]
        [services.web]
        app = "web:app"
        listen = "127.0.0.1:0"
        depends_on = ["node"]
    """
    web = """
        import servd

        async def app(scope, receive, send):
            assert scope["type"] == "http"
            answer = await servd.depends("node").get("/")
            await send({"type": "http.response.start", "status": answer.status_code,
                        "headers": []})
            await send({"type": "http.response.body", "body": answer.content})
    """
    daemon = servd(config, server_js=BOUND_BY_NODE, web_py=web).ready()
    name, pid = daemon.get("web").text.split()
    assert (name, int(pid)) == ("node", daemon.pids("node")[0])
    report = daemon.act("node", "restart")
    assert [c["kind"] for c in report["changes"]] == ["interrupt"]
    assert daemon.get("web").text.split()[1] != pid
    assert daemon.stop() == 0
    assert daemon.leftovers() == []


def test_node_workers_on_one_socket_are_replaced_without_a_lost_request(
    servd: Servd, node: str
) -> None:
    config = f"""
        [services.node]
        command = ["{node}", "server.js"]
        activation = "fd"
        listen = "127.0.0.1:0"
        workers = 2
        env = {{ WORD = "one" }}
    """
    daemon = servd(config, server_js=BOUND_BY_SERVD).ready()
    url = daemon.url("node")
    wait_until(lambda: httpx.get(url, timeout=DEADLINE).text.startswith("one "), "node answers")
    answers: list[str] = []
    over = threading.Event()

    def ask() -> None:
        with httpx.Client(timeout=DEADLINE) as client:
            while not over.is_set():
                answers.append(client.get(url).text.split()[0])

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        wait_until(lambda: len(answers) > 20, "it is being asked")
        assert daemon.reload(config.replace('"one"', '"two"'))["outcome"] == "applied"
        wait_until(lambda: answers[-1] == "two", "the new workers answer")
        seen = len(answers)
        wait_until(lambda: len(answers) > seen + 20, "and go on")
    finally:
        over.set()
        asking.join()
    assert set(answers) == {"one", "two"}
    assert len(daemon.pids("node")) == 2


INFERENCE_SERVER = """
    import argparse, http.server, threading, time

    parser = argparse.ArgumentParser()
    parser.add_argument("--model-repository")
    parser.add_argument("--http-port", type=int)
    arguments = parser.parse_args()
    loaded = threading.Event()

    def load():
        time.sleep(0.6)
        loaded.set()

    threading.Thread(target=load).start()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            ready = self.path == "/v2/health/ready"
            self.send_response(200 if loaded.is_set() and ready else 400)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", arguments.http_port), Handler)
    server.serve_forever()
"""


def test_an_inference_server_is_ready_when_its_models_are(servd: Servd) -> None:
    """As Triton is asked: by KServe's `/v2/health/ready`, on the port of `--http-port`."""
    config = f"""
        [services.triton]
        command = ["{sys.executable}", "triton.py", "--model-repository", "models",
                   "--http-port", "{{port}}"]
        health = {{ path = "/v2/health/ready", interval = "100ms" }}
        gpus = 1
        timeouts = {{ drain = "1s" }}
        [services.web]
        app = "web:app"
        listen = "127.0.0.1:0"
        depends_on = ["triton"]
        [daemon]
        gpus = 1
    """
    web = """
        import json, os, urllib.request

        async def app(scope, receive, send):
            assert scope["type"] == "http"
            url = json.loads(os.environ["SERVD_DEPENDENCIES"])["triton"]["url"]
            status = urllib.request.urlopen(url + "/v2/health/ready").status
            await send({"type": "http.response.start", "status": status, "headers": []})
            await send({"type": "http.response.body", "body": b""})
    """
    daemon = servd(config, triton_py=INFERENCE_SERVER, web_py=web).ready()
    ready = daemon.find("service ready", service="triton")[0]["timestamp"]
    assert daemon.find("worker started", service="web")[0]["timestamp"] > ready
    assert daemon.get("web").status_code == 200
    (pid,) = daemon.pids("triton")
    assert b"CUDA_VISIBLE_DEVICES=0\0" in Path(f"/proc/{pid}/environ").read_bytes()
