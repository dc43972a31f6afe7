"""Workers that reach a limit are replaced one at a time, and no request is lost by it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from support.harness import DEADLINE, Servd, ServdProcess, wait_until
from support.load import client_of, under_load
from support.strict_client import Tally

APP = """
    import asyncio, os

    kept = []

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        if scope["path"] == "/slow":
            await asyncio.sleep(0.5)
        if "LEAK" in os.environ:
            kept.append(os.urandom(int(os.environ["LEAK"])))
        body = b"ok"
        await send({"type": "http.response.start", "status": 200,
                    "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": body})
"""


ENDS_AND_STARTS = ("worker started", "worker stopped")


def serve(servd: Servd, limits: str, extra: str = "", workers: int = 2) -> ServdProcess:
    return servd(
        f"""
        [services.web]
        app = "main:app"
        listen = "127.0.0.1:0"
        workers = {workers}
        limits = {{ {limits} }}
        log.access = false
        {extra}
        """,
        main_py=APP,
    ).ready()


def load_until(daemon: ServdProcess, until: Callable[[], bool], **options: Any) -> Tally:
    client = client_of(daemon, **options)
    return under_load(client, lambda: wait_until(until, "workers were recycled"))


def recycled(daemon: ServdProcess, reason: str) -> list[dict[str, Any]]:
    return daemon.find("worker recycled", reason=reason)


def never_fewer_than(daemon: ServdProcess, workers: int) -> None:
    """Each worker left when its successor was ready, and never two at a time."""
    ready, leaving = 0, 0
    for event in daemon.events:
        if event["event"] == "worker ready":
            ready += 1
        elif event["event"] == "worker recycled":
            ready -= 1
            leaving += 1
            assert ready >= workers
    assert leaving > 0
    assert ready == workers


def test_max_requests_recycles_workers_by_turns_without_losing_a_request(servd: Servd) -> None:
    daemon = serve(servd, "max_requests = 60, max_requests_jitter = 20")
    before = daemon.pids("web")

    def all_recycled() -> bool:
        done = {event["pid"] for event in recycled(daemon, "max_requests")}
        return len(done) >= 4 and done.issuperset(before)

    tally = load_until(daemon, all_recycled)
    assert tally.lost == []
    wait_until(lambda: len(daemon.service("web")["processes"]) == 2, "all have settled")
    assert set(before).isdisjoint(daemon.pids("web"))
    never_fewer_than(daemon, 2)
    assert daemon.stop() == 0
    assert not daemon.find("service degraded")
    assert not daemon.find("worker exited")


def test_max_age_recycles_workers(servd: Servd) -> None:
    daemon = serve(servd, 'max_age = "1500ms"')
    tally = load_until(daemon, lambda: len(recycled(daemon, "max_age")) >= 2)
    assert tally.lost == []
    never_fewer_than(daemon, 2)


def test_memory_recycles_a_worker_that_grows(servd: Servd) -> None:
    leak = f'env = {{ LEAK = "{256 * 1024}" }}'
    daemon = serve(servd, 'memory = "64MiB"', leak, workers=1)
    tally = load_until(daemon, lambda: len(recycled(daemon, "memory")) >= 2)
    assert tally.lost == []
    never_fewer_than(daemon, 1)
    (first, *_) = daemon.find("worker recycle requested")
    assert first["limit"] == 64 * 1024 * 1024 < first["bytes"]


def test_a_program_that_binds_itself_is_stopped_and_started(servd: Servd) -> None:
    daemon = servd(
        """
        [services.files]
        command = ["python3", "-m", "http.server", "--bind", "{host}", "{port}"]
        limits.max_age = "1s"
        timeouts.drain = "1s"
        """,
    ).ready()
    before = daemon.wait_for("worker ready", service="files")["pid"]
    daemon.wait_for("worker recycled", reason="max_age")
    wait_until(lambda: daemon.pids("files") not in ([], [before]), "another one")
    lives = [(e["event"], e["pid"]) for e in daemon.events if e["event"] in ENDS_AND_STARTS]
    (first, old), (then, ended), (last, new) = lives[:3]
    assert (first, then, last) == ("worker started", "worker stopped", "worker started")
    assert old == ended != new


def test_a_worker_is_kept_while_its_successor_does_not_start(servd: Servd) -> None:
    """And replaced when it does; the failures are not held against the worker that goes on."""
    restart = 'restart = { give_up_after = 2, backoff = "100ms", backoff_max = "500ms" }'
    daemon = serve(servd, 'max_age = "1s"', restart, workers=1)
    servd.write(main_py="raise SystemExit('broken')")
    pid = daemon.wait_for("worker recycle postponed")["pid"]
    assert daemon.get("web").text == "ok"
    assert daemon.service("web")["state"] == "ready"
    servd.write(main_py=APP)
    daemon.wait_for("worker recycled", pid=pid)
    assert daemon.get("web").text == "ok"


def test_a_limit_that_a_fresh_worker_is_over_replaces_nothing(servd: Servd) -> None:
    daemon = serve(servd, 'memory = "1MiB"', workers=1)
    (pid,) = daemon.pids("web")
    warned = daemon.wait_for("worker recycle skipped", pid=pid)
    assert warned["level"] == "warning"
    assert warned["bytes"] > warned["limit"] == 1024 * 1024
    assert daemon.pids("web") == [pid]


def test_a_worker_that_has_served_enough_before_the_daemon_looks_is_recycled(servd: Servd) -> None:
    """It says so once only, at a time when the daemon does not know yet that it is ready."""
    waits = APP.replace(
        'assert scope["type"] == "http"',
        """if scope["type"] == "lifespan":
            await receive()
            print("starting", flush=True)
            while not os.path.exists("go"):
                await asyncio.sleep(0.01)
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return""",
    )
    daemon = servd(
        """
        [services.web]
        app = "main:app"
        listen = "127.0.0.1:0"
        limits = { max_requests = 3 }
        """,
        main_py=waits,
    )
    pid = daemon.wait_for("starting")["pid"]
    url = daemon.url("web")
    daemon.send(signal.SIGSTOP)
    try:
        (servd.folder / "go").touch()
        for _ in range(3):
            assert httpx.get(url, timeout=DEADLINE).text == "ok"
    finally:
        daemon.send(signal.SIGCONT)
    daemon.wait_for("worker recycled", pid=pid, reason="max_requests")


@pytest.mark.slow
def test_a_leak_under_load_loses_nothing(servd: Servd) -> None:
    leak = f'env = {{ LEAK = "{1024 * 1024}" }}'
    daemon = serve(servd, 'memory = "200MiB"', leak, workers=2)
    client = client_of(daemon, rate=120, slow=2)

    async def work() -> None:
        while client.tally.answered <= 2000 or len(recycled(daemon, "memory")) < 4:
            await client.round()

    tally = asyncio.run(client.during(work))
    assert tally.lost == []
    times = len(recycled(daemon, "memory"))
    print(f"{tally.answered} requests, {times} recycled")
    assert times >= 4
    assert tally.answered > 2000
    never_fewer_than(daemon, 2)
