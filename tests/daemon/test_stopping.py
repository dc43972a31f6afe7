"""SIGTERM: what is in flight is answered, in the order of the graph, and nothing is left."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import textwrap
import threading
import time

import httpx
import psutil
import pytest

from support.harness import DEADLINE, Servd, wait_until

SLOW = """
    import asyncio, os

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        seconds = float(scope["query_string"] or b"0")
        print("asked", flush=True)
        await asyncio.sleep(seconds)
        while scope["path"] == "/held" and not os.path.exists("go"):
            await asyncio.sleep(0.01)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})
"""


def test_eight_slow_requests_in_flight_are_all_answered(servd: Servd) -> None:
    config = '[services.web]\napp = "slow:app"\nlisten = "127.0.0.1:0"\nworkers = 2\n'
    daemon = servd(config, slow_py=SLOW).ready()
    with daemon.asking("web", "/?3", times=8) as answers:
        wait_until(lambda: len(daemon.lines("asked")) == 8, "eight requests in flight")
        assert daemon.stop() == 0
        texts = [answer.result() for answer in answers]
    assert [t.text for t in texts] == ["done"] * 8
    assert all(t.headers["connection"] == "close" for t in texts)


def test_dependents_drain_before_their_dependencies(servd: Servd) -> None:
    """A request that the gateway still works on reaches the backend, though both are stopping."""
    config = """
        [services.gateway]
        app = "gateway:app"
        listen = "127.0.0.1:0"
        depends_on = ["backend"]
        [services.backend]
        app = "slow:app"
    """
    gateway = """
        import asyncio, servd
        from fastapi import FastAPI

        app = FastAPI()

        @app.get("/")
        async def root():
            print("asked", flush=True)
            await asyncio.sleep(1)
            return (await servd.depends("backend").get("/?0.5")).text
    """
    daemon = servd(config, slow_py=SLOW, gateway_py=gateway).ready()
    with daemon.asking("gateway") as (answer,):
        daemon.wait_for_line("asked", service="gateway")
        assert daemon.stop() == 0
        assert answer.result().json() == "done"
    stopped = [e["service"] for e in daemon.find("service stopped")]
    assert stopped == ["gateway", "backend"]


def test_a_request_beyond_the_drain_is_cut_and_the_daemon_ends(servd: Servd) -> None:
    config = """
        [services.web]
        app = "slow:app"
        listen = "127.0.0.1:0"
        timeouts = { drain = "500ms" }
    """
    daemon = servd(config, slow_py=SLOW).ready()
    with daemon.asking("web", "/?100000") as (answer,):
        daemon.wait_for_line("asked")
        assert daemon.stop() == 0
        with pytest.raises(httpx.HTTPError):
            answer.result()


def test_a_worker_whose_loop_is_blocked_is_killed_and_named(servd: Servd) -> None:
    """It hears no signal; the daemon gives it the drain and a few seconds more."""
    blocked = """
        import time

        async def app(scope, receive, send):
            assert scope["type"] == "http"
            print("asked", flush=True)
            time.sleep(1000)
    """
    config = """
        [services.web]
        app = "blocked:app"
        listen = "127.0.0.1:0"
        timeouts = { drain = "100ms" }
    """
    daemon = servd(config, blocked_py=blocked).ready()
    with daemon.asking("web") as (answer,):
        daemon.wait_for_line("asked")
        assert daemon.stop() == 0
        with pytest.raises(httpx.HTTPError):
            answer.result()
    assert daemon.find("worker killed", service="web")
    assert daemon.find("servd stopped", graceful=False)


def test_a_second_signal_ends_everything_at_once(servd: Servd) -> None:
    config = '[services.web]\napp = "slow:app"\nlisten = "127.0.0.1:0"\n'
    daemon = servd(config, slow_py=SLOW).ready()
    with daemon.asking("web", "/?100000") as (answer,):
        daemon.wait_for_line("asked")
        daemon.remember()
        daemon.send(signal.SIGTERM)
        daemon.wait_for("service stopping")
        daemon.send(signal.SIGTERM)
        assert daemon.wait() == 0
        with pytest.raises(httpx.HTTPError):
            answer.result()
    assert daemon.leftovers() == []


def test_a_kept_connection_hears_of_the_end_instead_of_being_reset(servd: Servd) -> None:
    """During the drain an idle connection's next request is answered, with Connection: close."""
    config = '[services.web]\napp = "slow:app"\nlisten = "127.0.0.1:0"\n'
    daemon = servd(config, slow_py=SLOW).ready()
    host, port = daemon.url("web").removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as kept, httpx.Client() as other:
        kept.settimeout(DEADLINE)
        request = b"GET /?0 HTTP/1.1\r\nHost: x\r\n\r\n"
        kept.sendall(request)
        assert b"done" in _answer(kept)
        thread = threading.Thread(
            target=lambda: other.get(f"{daemon.url('web')}/held", timeout=DEADLINE)
        )
        thread.start()
        wait_until(lambda: len(daemon.lines("asked")) == 2, "a request that holds the drain")
        daemon.send(signal.SIGTERM)
        daemon.wait_for("service stopping")
        wait_until(lambda: daemon.service("web")["draining"], "the drain has begun")
        kept.sendall(request)
        answer = _answer(kept)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in answer.lower()
        assert kept.recv(1) == b""
        (daemon.folder / "go").touch()
        thread.join()
    assert daemon.wait() == 0


NEVER_RETURN = {
    "anyio": """
        from fastapi import FastAPI
        app = FastAPI()

        @app.get("/")
        def never():
            wait()
    """,
    "asyncio": """
        import asyncio
        async def app(scope, receive, send):
            assert scope["type"] == "http"
            await asyncio.to_thread(wait)
    """,
    "wsgi": """
        def app(environ, start_response):
            wait()
    """,
    "its own answer": """
        import asyncio
        async def app(scope, receive, send):
            assert scope["type"] == "http"
            asyncio.get_running_loop().run_in_executor(None, wait)
            await send({"type": "http.response.start", "status": 504, "headers": []})
            await send({"type": "http.response.body"})
    """,
}
WAIT = """
    import atexit, time
    atexit.register(lambda: open("at the exit", "w").close())
    def wait():
        time.sleep(100000)
"""


@pytest.mark.parametrize("kind", NEVER_RETURN)
def test_a_thread_whose_request_was_answered_holds_no_stop_up(servd: Servd, kind: str) -> None:
    config = """
        [services.web]
        app = "never:app"
        listen = "127.0.0.1:0"
        timeouts = { drain = "1h", request = "500ms" }
    """
    daemon = servd(
        config, never_py=textwrap.dedent(WAIT) + textwrap.dedent(NEVER_RETURN[kind])
    ).ready()
    assert daemon.get("web").status_code == 504
    assert daemon.stop() == 0
    assert daemon.find("servd stopped", graceful=True)
    assert (servd.folder / "at the exit").exists()


def test_a_thread_that_works_on_after_an_answer_is_waited_for(servd: Servd) -> None:
    """Nobody knows that its work is useless, also where another thread's is."""
    later = """
        import asyncio, os, time

        def work():
            while not os.path.exists("go"):
                time.sleep(0.01)
            open("done", "w").close()

        async def app(scope, receive, send):
            assert scope["type"] == "http"
            loop = asyncio.get_running_loop()
            if scope["path"] == "/never":
                await loop.run_in_executor(None, time.sleep, 100000)
            loop.run_in_executor(None, work)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"accepted"})
    """
    config = """
        [services.web]
        app = "later:app"
        listen = "127.0.0.1:0"
        timeouts = { drain = "1h", request = "500ms" }
    """
    daemon = servd(config, later_py=later).ready()
    assert daemon.get("web", "/never").status_code == 504
    assert daemon.get("web").text == "accepted"
    daemon.send(signal.SIGTERM)
    daemon.wait_for("worker draining")
    (servd.folder / "go").touch()
    assert daemon.wait() == 0
    assert (servd.folder / "done").exists()


@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_idle_connections_hold_no_stop_up(servd: Servd, http: str) -> None:
    """Nothing else is left: they are closed after a moment. What is arriving is answered."""
    config = f"""
        [services.web]
        app = "slow:app"
        listen = "127.0.0.1:0"
        workers = 2
        timeouts = {{ keep_alive = "1h", drain = "1h", headers = "1h" }}
        uvicorn.http = "{http}"
    """
    daemon = servd(config, slow_py=SLOW).ready()
    host, port = daemon.url("web").removeprefix("http://").split(":")
    request = b"GET /?0 HTTP/1.1\r\nHost: x\r\n\r\n"
    with contextlib.ExitStack() as stack:
        kept = [stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(6)]
        for client in kept:
            client.settimeout(DEADLINE)
            client.sendall(request)
            assert b"done" in _answer(client)
        unused = stack.enter_context(socket.create_connection((host, int(port))))
        unused.settimeout(DEADLINE)
        kept[0].sendall(request[:10])
        daemon.send(signal.SIGTERM)
        for client in (*kept[1:], unused):
            assert client.recv(1) == b""
        kept[0].sendall(request[10:])
        assert b"connection: close" in _answer(kept[0]).lower()
    assert daemon.wait() == 0
    assert daemon.find("servd stopped", graceful=True)


def _answer(sock: socket.socket) -> bytes:
    """One chunked answer, as the app of these tests gives it."""
    content = b""
    while not content.endswith(b"0\r\n\r\n"):
        chunk = sock.recv(65536)
        assert chunk, f"closed after {content!r}"
        content += chunk
    return content


def test_a_grandchild_that_ignores_signals_does_not_outlive_its_service(servd: Servd) -> None:
    """A program whose child traps SIGTERM: the group is ended with the program."""
    config = """
        [services.parent]
        command = ["python3", "parent.py"]
        ready = "notify"
        timeouts = { drain = "1s" }
    """
    parent = """
        import os, signal, socket, subprocess, sys, time
        code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
        code += "; print('up', flush=True); time.sleep(1000)"
        child = subprocess.Popen([sys.executable, "-c", code])
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
        signal.pause()
    """
    daemon = servd(config, parent_py=parent).ready()
    daemon.wait_for_line("up", service="parent")
    wait_until(lambda: len(daemon.descendants()) == 2, "the program and its child")
    assert daemon.stop() == 0


def test_workers_drain_and_end_when_the_daemon_is_killed(servd: Servd) -> None:
    """SIGKILL of the daemon: the request in flight is answered, and no worker stays."""
    config = '[services.web]\napp = "slow:app"\nlisten = "127.0.0.1:0"\nworkers = 2\n'
    daemon = servd(config, slow_py=SLOW).ready()
    with daemon.asking("web", "/?1.5") as (answer,):
        daemon.wait_for_line("asked")
        workers = [psutil.Process(pid) for pid in daemon.workers("web").values()]
        daemon.remember()
        os.kill(daemon.pid, signal.SIGKILL)
        daemon.wait()
        assert answer.result().text == "done"
    gone, alive = psutil.wait_procs(workers, timeout=DEADLINE)
    assert alive == []
    assert len(gone) == 2


def test_a_log_file_that_was_moved_away_is_opened_anew_on_sigusr1(servd: Servd) -> None:
    log = servd.folder / "servd.log"
    config = """
        [daemon]
        log = { file = "servd.log" }
        [services.web]
        app = "slow:app"
    """
    daemon = servd(config, slow_py=SLOW)
    wait_until(lambda: log.exists() and "servd ready" in log.read_text(), "the log")
    log.rename(servd.folder / "servd.log.1")
    daemon.send(signal.SIGUSR1)
    wait_until(lambda: log.exists() and "log reopened" in log.read_text(), "a new log")
    assert daemon.stop() == 0
    assert "servd stopped" in log.read_text()
    assert daemon.output == ""


@pytest.mark.parametrize(
    "number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGINT, signal.SIGTERM, signal.SIGUSR2]
)
def test_a_signal_at_the_very_end_does_not_change_how_it_ends(
    servd: Servd, number: signal.Signals
) -> None:
    daemon = servd('[services.job]\ncommand = ["sleep", "1000"]\n').ready()
    daemon.send(signal.SIGTERM)
    daemon.wait_for("servd stopped")
    while daemon.process.poll() is None:
        daemon.send(number)
        time.sleep(0.002)  # as fast as a person who is out of patience
    assert daemon.wait() == 0
    assert daemon.leftovers() == []


DELAYED = """
    [daemon]
    stop_delay = "{}"
    [services.web]
    app = "slow:app"
    listen = "127.0.0.1:0"
"""


def test_a_delay_lets_load_balancers_look_away_first(servd: Servd) -> None:
    """Until it is over, everything is served and supervised; only /readyz says otherwise."""
    daemon = servd(DELAYED.format("1h"), slow_py=SLOW).ready()
    assert daemon.ask("GET", "/readyz").status_code == 200
    daemon.send(signal.SIGTERM)
    wait_until(lambda: daemon.ask("GET", "/readyz").status_code == 503, "it says that it stops")
    assert daemon.wait_for("stopping")["delay"] == 3600
    assert daemon.status()["state"] == "stopping"
    assert daemon.get("web").text == "done"
    (before,) = daemon.pids("web")
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: daemon.pids("web") not in ([], [before]), "a worker that dies comes back")
    assert daemon.get("web").text == "done"
    assert not daemon.lines("service stopping")
    daemon.send(signal.SIGTERM)
    assert daemon.wait() == 0, "a second signal ends it"
    assert daemon.find("stopping immediately")


def test_the_drain_follows_the_delay(servd: Servd) -> None:
    daemon = servd(DELAYED.format("200ms"), slow_py=SLOW).ready()
    with daemon.asking("web", "/?1", times=2) as answers:
        wait_until(lambda: len(daemon.lines("asked")) == 2, "two requests in flight")
        assert daemon.stop() == 0
        assert [answer.result().text for answer in answers] == ["done"] * 2
    assert daemon.leftovers() == []


def test_a_stop_during_an_upgrade_ends_it_also_with_a_delay(servd: Servd) -> None:
    daemon = servd(DELAYED.format("1s"), slow_py=SLOW).ready()
    daemon.send(signal.SIGUSR2)
    daemon.wait_for("upgrade started")
    daemon.send(signal.SIGTERM)
    assert daemon.wait() == 0
    assert daemon.leftovers() == []
