"""`health`: each worker is asked by itself."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from support.harness import Servd, wait_until

APP = """
    import os
    from pathlib import Path

    asked = 0

    async def app(scope, receive, send):
        global asked
        assert scope["type"] == "http"
        sick = Path("sick").exists() and Path("sick").read_text() == str(os.getpid())
        status, body = 200, str(os.getpid()).encode()
        if scope["path"] == "/healthz":
            asked += 1
            assert dict(scope["headers"])[b"host"] == b"localhost"
            late = asked <= int(os.environ.get("LATE", "0"))
            status = 503 if sick or late else 204
        elif scope["path"] == "/asked":
            body = str(asked).encode()
        await send({"type": "http.response.start", "status": status,
                    "headers": [(b"content-length", str(len(body)).encode())]})
        await send({"type": "http.response.body", "body": body})
"""

CONFIG = """
    [services.web]
    app = "main:app"
    listen = "127.0.0.1:0"
    workers = 2
    {}
"""
HEALTH = 'health = { path = "/healthz", interval = "200ms", failures = 2 }'


def test_a_worker_that_fails_its_probes_is_replaced_by_one_that_is_ready_first(
    servd: Servd,
) -> None:
    daemon = servd(CONFIG.format(HEALTH), main_py=APP).ready()
    before = daemon.pids("web")
    (daemon.folder / "sick").write_text(str(before[1]))
    degraded = daemon.wait_for("service degraded")
    assert degraded["error"] == "worker 1: GET /healthz returned 503"
    daemon.wait_for("worker recycled", worker=1, reason="health")
    wait_until(lambda: daemon.service("web")["state"] == "ready", "the service is well again")
    after = daemon.pids("web")
    assert after[0] == before[0]
    assert after[1] not in before
    order = [e["event"] for e in daemon.events if e.get("worker") == 1 and "event" in e]
    assert order.index("worker recycle requested") < order.index("worker recycled")
    readies = [i for i, name in enumerate(order) if name == "worker ready"]
    assert readies[1] < order.index("worker recycled")
    assert daemon.metric("servd_worker_restarts_total", reason="health", service="web") == 1
    assert daemon.stop() == 0
    assert not daemon.find("worker exited")


def test_a_worker_that_recovers_before_its_successor_is_ready_stays(
    servd: Servd,
) -> None:
    """Its successor never becomes healthy: the service is degraded, and well again by itself."""
    app = APP.replace("sick = Path", 'sick = Path("all").exists() or Path')
    daemon = servd(CONFIG.format(HEALTH).replace("workers = 2", "workers = 1"), main_py=app).ready()
    (pid,) = daemon.pids("web")
    (daemon.folder / "all").touch()
    wait_until(lambda: daemon.service("web")["state"] == "degraded", "the service shows it")
    (unhealthy, *_) = daemon.service("web")["processes"]
    assert (unhealthy["pid"], unhealthy["state"]) == (pid, "unhealthy")
    assert daemon.ask("GET", "/readyz").status_code == 503
    assert httpx.get(daemon.url("web")).text == str(pid)  # it goes on serving
    (daemon.folder / "all").unlink()
    wait_until(lambda: daemon.service("web")["state"] == "ready", "the service is well again")
    assert daemon.service("web")["error"] is None


def test_a_worker_is_ready_when_it_is_healthy(servd: Servd) -> None:
    daemon = servd(
        CONFIG.format(HEALTH).replace("workers = 2", "workers = 1") + 'env = { LATE = "4" }',
        main_py=APP,
    ).ready()
    assert int(daemon.get("web", "/asked").text) >= 5


def test_a_starting_worker_is_forgiven_so_many_failures_and_no_more(servd: Servd) -> None:
    health = HEALTH.replace(" }", ", start_failures = 3 }")
    daemon = servd(
        CONFIG.format(health).replace("workers = 2", "workers = 1") + 'env = { LATE = "100000" }',
        main_py=APP,
    )
    died = daemon.wait_for("worker exited")
    assert died["reason"] == "was not healthy within 0.6 s: GET /healthz returned 503"
    assert daemon.wait_for("service backoff")


def test_probes_are_neither_logged_nor_counted(servd: Servd) -> None:
    daemon = servd(CONFIG.format(HEALTH).replace("workers = 2", "workers = 1"), main_py=APP).ready()
    wait_until(lambda: int(daemon.get("web", "/asked").text) > 3, "some probes")
    counted = daemon.ask("GET", "/metrics").text
    assert 'code="204"' not in counted
    assert daemon.stop() == 0
    assert not daemon.find("request", **{"url.path": "/healthz"})


def test_a_changed_health_applies_to_running_workers(servd: Servd) -> None:
    config = CONFIG.replace("workers = 2", "workers = 1")
    daemon = servd(config.format(""), main_py=APP).ready()
    (pid,) = daemon.pids("web")
    assert daemon.get("web", "/asked").text == "0"
    answer = daemon.reload(config.format(HEALTH))
    assert [change["kind"] for change in answer["changes"]] == ["live"]
    wait_until(lambda: daemon.get("web", "/asked").text != "0", "a probe")
    assert daemon.pids("web") == [pid]
    daemon.reload(config.format("health = false"))
    (daemon.folder / "sick").write_text(str(pid))
    asked = daemon.get("web", "/asked").text
    httpx.get(daemon.url("web"))
    assert daemon.get("web", "/asked").text == asked
    assert daemon.service("web")["state"] == "ready"


def test_a_program_is_asked_at_its_own_address(servd: Servd) -> None:
    daemon = servd(
        """
        [services.files]
        command = ["python3", "-m", "http.server", "--bind", "{host}", "{port}"]
        health = { path = "/well.txt", interval = "200ms", failures = 2 }
        timeouts.drain = "1s"
        """,
        well_txt="yes",
    ).ready()
    (before,) = daemon.pids("files")
    (daemon.folder / "well.txt").rename(daemon.folder / "ill.txt")
    error = daemon.wait_for("worker recycle requested", reason="health")["error"]
    assert error == "GET /well.txt returned 404"
    (daemon.folder / "ill.txt").rename(daemon.folder / "well.txt")
    wait_until(
        lambda: daemon.service("files")["state"] == "ready" and daemon.pids("files") != [before],
        "another worker",
    )
    assert Path(f"/proc/{before}").exists() is False


def test_an_unhealthy_service_is_not_ready_while_it_rolls(servd: Servd) -> None:
    app = APP.replace("sick = Path", 'sick = Path("all").exists() or Path')
    config = CONFIG.format(HEALTH).replace("workers = 2", "workers = 1")
    daemon = servd(config, main_py=app).ready()
    (daemon.folder / "all").touch()
    wait_until(lambda: daemon.service("web")["state"] == "degraded", "the service shows it")
    with ThreadPoolExecutor(1) as pool:
        changed = config + 'timeouts.startup = "2s"\n    env = { A = "1" }'
        rolling = pool.submit(daemon.reload, changed)
        wait_until(lambda: daemon.find("reload started"), "the reload")
        states = set()
        while not rolling.done():
            states.add(daemon.service("web")["state"])
            assert daemon.ask("GET", "/readyz").status_code == 503
        assert rolling.result()["outcome"] == "rolled_back"
    assert states == {"degraded"}


def test_a_probe_that_is_under_way_at_the_end_of_a_worker_says_nothing(servd: Servd) -> None:
    app = APP.replace(
        'if scope["path"] == "/healthz":\n',
        'if scope["path"] == "/healthz":\n'
        "            if asked > 1:\n"
        '                print("probed", flush=True)\n'
        "                await __import__('asyncio').sleep(30)\n",
    )
    health = HEALTH.replace(" }", ', timeout = "20s" }')
    config = CONFIG.format(health).replace("workers = 2", "workers = 1")
    daemon = servd(config, main_py=app).ready()
    daemon.wait_for_line("probed")
    assert daemon.stop() == 0
    assert "Exception in ASGI application" not in daemon.output
    assert not daemon.find("worker killed")
