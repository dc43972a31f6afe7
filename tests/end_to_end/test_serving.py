"""A config file becomes processes that answer."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import statistics
import time
from collections.abc import Iterator

from support.harness import DEADLINE, Servd

APP = """
    import json, os

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        body = json.dumps({
            "pid": os.getpid(),
            "path": scope["path"],
            "root_path": scope["root_path"],
            "client": scope["client"],
            "scheme": scope["scheme"],
            "cwd": os.getcwd(),
            "environ": dict(os.environ),
            "descriptors": sorted(int(fd) for fd in os.listdir("/proc/self/fd")),
        }).encode()
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
"""


def test_three_lines_are_a_complete_config(servd: Servd) -> None:
    daemon = servd(
        '[services.web]\napp = "main:app"\nlisten = "127.0.0.1:0"\n', main_py=APP
    ).ready()
    answer = daemon.get("web", "/hello")
    assert answer.status_code == 200
    assert answer.json()["path"] == "/hello"
    assert answer.json()["cwd"] == str(servd.folder)
    assert daemon.stop() == 0


def test_workers_share_one_socket_and_each_knows_its_index(servd: Servd) -> None:
    daemon = servd(
        '[services.web]\napp = "main:app"\nlisten = "127.0.0.1:0"\nworkers = 3\n', main_py=APP
    ).ready()
    seen = {}
    for _ in range(200):
        answer = daemon.get("web").json()
        seen[answer["environ"]["SERVD_WORKER"]] = answer["pid"]
        if len(seen) == 3:
            break
    assert {index: daemon.workers("web")[int(index)] for index in seen} == seen
    assert len(seen) > 1


def test_a_worker_gets_its_environment_and_nothing_of_the_daemons(servd: Servd) -> None:
    config = """
        [defaults]
        env = { A = "defaults", B = "defaults" }
        env_file = "shared.env"
        [services.web]
        app = "main:app"
        listen = "127.0.0.1:0"
        env_file = "own.env"
        env = { D = "own" }
        env_passthrough = ["PASSED_*"]
    """
    daemon = servd(
        config,
        environ={
            "PASSED_ON": "yes",
            "KEPT": "no",
            "LISTEN_FDNAMES": "not-ours",
            "SERVD_DEP_PRICES": "http://prices:8000",
        },
        main_py=APP,
        shared_env="A=shared\nC=shared\n",
        own_env="B=own-file\nC=own-file\nD=own-file\n",
    ).ready()
    environ = daemon.get("web").json()["environ"]
    assert (environ["A"], environ["B"], environ["C"], environ["D"]) == (
        "defaults",
        "own-file",
        "own-file",
        "own",
    )
    assert environ["PASSED_ON"] == "yes"
    assert "KEPT" not in environ
    assert environ["SERVD_DEP_PRICES"] == "http://prices:8000"
    assert environ["SERVD_SERVICE"] == "web"
    assert environ["SERVD_GENERATION"] == "1"
    assert environ["LISTEN_FDS"] == "1"
    assert environ["LISTEN_FDNAMES"] == "web"
    assert environ["LISTEN_PID"] == str(daemon.workers("web")[0])


def test_a_worker_inherits_its_own_sockets_only(servd: Servd) -> None:
    """Two services with two sockets each: no worker holds a listening socket of the other."""
    config = """
        [services.one]
        app = "main:app"
        listen = ["127.0.0.1:0", "unix:one.sock"]
        [services.two]
        app = "main:app"
        listen = ["127.0.0.1:0", "unix:two.sock"]
    """
    from pathlib import Path

    daemon = servd(config, main_py=APP).ready()
    listening = {}
    for name in ("one", "two"):
        pid = daemon.workers(name)[0]
        inodes = {
            link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()
        }
        listening[name] = {inode for inode in inodes if inode.startswith("socket:")}
    assert listening["one"] & listening["two"] == set()
    assert daemon.stop() == 0
    assert not (servd.folder / "one.sock").exists()


def test_dependencies_are_reached_over_their_socket_with_the_request_id(servd: Servd) -> None:
    config = """
        [services.gateway]
        app = "gateway:app"
        listen = "127.0.0.1:0"
        depends_on = ["backend"]
        [services.backend]
        app = "backend:app"
    """
    daemon = servd(
        config,
        gateway_py="""
            import servd
            from fastapi import FastAPI

            app = FastAPI()
            backend = servd.depends("backend")
            same_sync = servd.depends_sync("backend")

            @app.get("/")
            async def root():
                return (await backend.get("/seen")).json()

            @app.get("/sync")
            def sync():
                return same_sync.get("/seen").json()
        """,
        backend_py="""
            from fastapi import FastAPI, Request

            app = FastAPI()

            @app.get("/seen")
            def seen(request: Request):
                return dict(request.headers)
        """,
    ).ready()
    headers = {"x-request-id": "abc-123", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    for path in ("/", "/sync"):
        seen = daemon.get("gateway", path, headers=headers).json()
        assert seen["host"] == "backend"
        assert seen["x-request-id"] == "abc-123"
        assert seen["traceparent"] == headers["traceparent"]
    daemon.wait_for("request", service="backend", request_id="abc-123")
    order = [e["service"] for e in daemon.find("service ready")]
    assert order == ["backend", "gateway"]


def test_every_kind_of_app_runs(servd: Servd) -> None:
    """A factory, an app in a file, WSGI, ASGI 2, and a nested attribute."""
    config = """
        [services.factory]
        app = "apps:make"
        factory = true
        listen = "127.0.0.1:0"
        [services.file]
        app = "sub/alone.py:app"
        listen = "127.0.0.1:0"
        [services.wsgi]
        app = "apps:wsgi"
        interface = "wsgi"
        listen = "127.0.0.1:0"
        [services.old]
        app = "apps:Old"
        listen = "127.0.0.1:0"
        [services.nested]
        app = "apps:holder.app"
        listen = "127.0.0.1:0"
    """
    (servd.folder / "sub").mkdir()
    (servd.folder / "sub" / "beside.py").write_text('WORD = "file"\n')
    (servd.folder / "sub" / "alone.py").write_text(
        "from beside import WORD\nfrom apps import answer\napp = answer(WORD)\n"
    )
    daemon = servd(
        config,
        apps_py="""
            def answer(word):
                async def app(scope, receive, send):
                    assert scope["type"] == "http"
                    await send({"type": "http.response.start", "status": 200, "headers": []})
                    await send({"type": "http.response.body", "body": word.encode()})
                return app

            def make():
                return answer("factory")

            def wsgi(environ, start_response):
                start_response("200 OK", [("Content-Type", "text/plain")])
                return [b"wsgi"]

            class Old:
                def __init__(self, scope):
                    assert scope["type"] == "http"
                async def __call__(self, receive, send):
                    await answer("old")({"type": "http"}, receive, send)

            class holder:
                app = staticmethod(answer("nested"))
        """,
    ).ready()
    for name in ("factory", "file", "wsgi", "old", "nested"):
        assert daemon.get(name).text == name, daemon.output


def test_proxy_headers_are_believed_from_trusted_peers_only(servd: Servd) -> None:
    config = """
        [services.trusting]
        app = "main:app"
        listen = "127.0.0.1:0"
        root_path = "/mounted"
        proxy = { headers = true, trusted = ["127.0.0.1"] }
        [services.wary]
        app = "main:app"
        listen = "127.0.0.1:0"
        proxy = { headers = true, trusted = ["10.0.0.1"] }
        [services.behind]
        app = "main:app"
        listen = "unix:behind.sock"
        proxy = { headers = true, trusted = ["unix"] }
    """
    import httpx

    daemon = servd(config, main_py=APP).ready()
    headers = {"x-forwarded-for": "192.0.2.7", "x-forwarded-proto": "https"}
    trusting = daemon.get("trusting", headers=headers).json()
    assert trusting["client"][0] == "192.0.2.7"
    assert trusting["scheme"] == "https"
    assert trusting["root_path"] == "/mounted"
    wary = daemon.get("wary", headers=headers).json()
    assert wary["client"][0] == "127.0.0.1"
    assert wary["scheme"] == "http"
    transport = httpx.HTTPTransport(uds=str(servd.folder / "behind.sock"))
    with httpx.Client(transport=transport) as client:
        behind = client.get("http://behind/", headers=headers).json()
    assert behind["client"][0] == "192.0.2.7"


def test_listeners_have_nodelay_so_that_no_answer_stalls(servd: Servd) -> None:
    """Small answers on a kept connection take far less than the 40 ms of a delayed ACK."""
    import httpx

    daemon = servd(
        '[services.web]\napp = "main:app"\nlisten = "127.0.0.1:0"\n', main_py=APP
    ).ready()
    with httpx.Client(base_url=daemon.url("web")) as client:
        client.get("/")
        times, fresh = [], []
        for _ in range(30):
            began = time.perf_counter()
            client.get("/")
            times.append(time.perf_counter() - began)
            began = time.perf_counter()
            # on a connection of its own, at whose beginning no ACK is delayed
            with socket.create_connection((client.base_url.host, client.base_url.port)) as other:
                other.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                while other.recv(65536):
                    pass
            fresh.append(time.perf_counter() - began)
    assert statistics.median(times) < 0.03 + statistics.median(fresh)


def test_what_is_printed_and_logged_becomes_events(servd: Servd) -> None:
    daemon = servd(
        '[services.web]\napp = "main:app"\nlisten = "127.0.0.1:0"\n',
        main_py="""
            import logging, sys
            print("printed at import")
            print("to stderr", file=sys.stderr)
            logging.getLogger("mine").warning("logged %s", "here")

            async def app(scope, receive, send):
                assert scope["type"] == "http"
                if scope["path"] == "/boom":
                    raise RuntimeError("boom")
                await send({"type": "http.response.start", "status": 204, "headers": []})
                await send({"type": "http.response.body"})
        """,
    ).ready()
    pid = daemon.workers("web")[0]
    printed = daemon.wait_for_line("printed at import", service="web", stream="stdout")
    assert (printed["pid"], printed["worker"], printed["level"]) == (pid, 0, "info")
    daemon.wait_for_line("to stderr", stream="stderr")
    logged = daemon.wait_for_line("logged here", logger="mine")
    assert logged["level"] == "warning"
    assert daemon.get("web", "/some?q=1").status_code == 204
    access = daemon.wait_for("request")
    assert access["http.request.method"] == "GET"
    assert access["url.path"] == "/some"
    assert access["http.response.status_code"] == 204
    assert access["client.address"] == "127.0.0.1"
    assert access["duration_ms"] > 0
    assert access["request_id"]
    assert access["timestamp"].endswith("Z")
    assert daemon.get("web", "/boom").status_code == 500
    failed = daemon.wait_for_line("Exception in ASGI application")
    assert "RuntimeError: boom" in failed["exception"]
    daemon.wait_for("request", **{"http.response.status_code": 500})
    assert json.loads(daemon.output.splitlines()[0])["event"] == "servd started"


def test_threads_and_keep_alive_are_those_configured(servd: Servd) -> None:
    config = """
        [services.web]
        app = "main:app"
        listen = "127.0.0.1:0"
        threads = 3
        timeouts = { keep_alive = "300ms" }
        [services.patient]
        app = "main:app"
        listen = "127.0.0.1:0"
        timeouts = { keep_alive = "5s" }
    """
    main = """
        import asyncio, threading, time
        from anyio import to_thread
        from fastapi import FastAPI

        app = FastAPI()

        @app.get("/")
        async def root():
            seen = set()
            def note():
                seen.add(threading.get_ident())
                time.sleep(0.05)
            loop = asyncio.get_running_loop()
            await asyncio.gather(*(loop.run_in_executor(None, note) for _ in range(12)))
            return [to_thread.current_default_thread_limiter().total_tokens, len(seen)]
    """
    daemon = servd(config, main_py=main).ready()
    assert daemon.get("web").json() == [3, 3]

    @contextlib.contextmanager
    def idle(service: str) -> Iterator[socket.socket]:
        host, port = daemon.url(service).removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), DEADLINE) as kept:
            kept.sendall(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while not answer.endswith(b"}"):
                answer += kept.recv(65536)
            assert answer.startswith(b"HTTP/1.1 404")
            yield kept

    with idle("patient") as first, idle("web") as kept:
        assert kept.recv(1) == b""
        assert select.select([first], [], [], 0) == ([], [], []), "it has 5 s, and was idle before"
        assert first.recv(1) == b""
