"""`autoscale` with real workers under real load."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx

from support.harness import DEADLINE, Servd, ServdProcess, wait_until

APP = """
    import asyncio
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/")
    async def work():
        await asyncio.sleep(0.05)
        return "done"
"""

CONFIG = """
    [services.web]
    app = "main:app"
    listen = "127.0.0.1:0"
    autoscale = {{ max = {most}, target_in_flight = 2, up_after = "1s", down_after = "2s" }}
    {more}
"""


def config(most: int = 4, more: str = "") -> str:
    return CONFIG.format(most=most, more=more)


@contextmanager
def load(daemon: ServdProcess, clients: int) -> Iterator[list[str]]:
    """As many requests in flight as `clients`; yields what was lost, complete at the end."""
    url, over, lost = daemon.url("web"), threading.Event(), list[str]()

    def ask() -> None:
        with httpx.Client(timeout=DEADLINE) as client:
            while not over.is_set():
                try:
                    answer = client.get(url)
                except httpx.TransportError as error:
                    lost.append(repr(error))
                else:
                    if answer.status_code != 200:
                        lost.append(str(answer.status_code))

    with ThreadPoolExecutor(clients) as pool:
        asking = [pool.submit(ask) for _ in range(clients)]
        try:
            yield lost
        finally:
            over.set()
            for each in asking:
                each.result()


def workers(daemon: ServdProcess) -> int:
    return len(daemon.pids("web"))


def until(daemon: ServdProcess, number: int) -> None:
    wait_until(lambda: workers(daemon) == number, f"{number} workers")


def test_workers_follow_the_load_and_nothing_is_lost(servd: Servd) -> None:
    daemon = servd(config(), main_py=APP).ready()
    assert workers(daemon) == 1
    with load(daemon, 12) as lost:
        until(daemon, 4)
        event = daemon.wait_for("workers autoscaled", service="web")
        assert event["before"] < event["workers"] <= 4
        assert event["in_flight"] > 2
        scale = daemon.service("web")["autoscale"]
        assert (scale["min"], scale["max"], scale["target_in_flight"]) == (1, 4, 2.0)
        assert "1 to 4 workers for 2 requests in flight each" in daemon.cli("status").stdout
    until(daemon, 1)
    assert lost == []
    status = daemon.status()
    assert status["last_act"] is None, "nobody acted"
    assert status["last_reload"] is None
    assert status["services"][0]["by_hand"] is None
    assert status["services"][0]["restarts"] == 0


def test_a_number_set_by_hand_stays_until_it_is_left_to_the_file(servd: Servd) -> None:
    daemon = servd(config(), main_py=APP).ready()
    assert daemon.cli("scale", "web=3").returncode == 0
    assert daemon.reload(config(more='env = { A = "1" }'))["outcome"] == "applied"
    assert daemon.upgrade()["outcome"] == "replaced"
    told = daemon.cli("status").stdout
    assert "3 workers (set manually; autoscale waits)" in told
    assert daemon.service("web")["autoscale"]["in_flight"] is None
    assert workers(daemon) == 3
    assert daemon.cli("scale", "web=auto").returncode == 0
    until(daemon, 1)
    assert daemon.find("workers autoscaled", before=3, workers=1) or workers(daemon) == 1
    assert "already has what the configuration says" in daemon.cli("scale", "web=auto").stdout


def test_a_reload_and_an_upgrade_keep_the_number(servd: Servd) -> None:
    slow = config().replace('down_after = "2s"', 'down_after = "1h"')
    daemon = servd(slow, main_py=APP).ready()
    with load(daemon, 12) as lost:
        until(daemon, 4)
        report = daemon.reload(slow + '    env = { A = "1" }\n')
        assert [change["kind"] for change in report["changes"]] == ["roll"]
        assert workers(daemon) == 4
    assert daemon.upgrade()["outcome"] == "replaced"
    assert workers(daemon) == 4
    report = daemon.reload(slow.replace("max = 4", "max = 2"))
    assert workers(daemon) == 2
    report = daemon.reload(slow.replace("autoscale = {", "workers = 3 #"))
    assert workers(daemon) == 3
    assert lost == []


def test_no_more_workers_than_gpus_allow(servd: Servd) -> None:
    gpus = f"[daemon]\ngpus = [0, 1]\n{config(8, 'gpus = 1')}"
    daemon = servd(gpus, main_py=APP).ready()
    with load(daemon, 12) as lost:
        until(daemon, 2)
        refused = daemon.wait_for("reload refused")
        assert "this machine has 2 GPUs" in refused["error"]
        assert workers(daemon) == 2
    until(daemon, 1)
    assert lost == []


def test_workers_that_do_not_start_change_nothing(servd: Servd) -> None:
    app = (
        APP
        + """
    import os
    if int(os.environ["SERVD_WORKER"]) > 0:
        raise SystemExit("no more workers")
    """
    )
    daemon = servd(config(), main_py=app).ready()
    before = daemon.pids("web")
    with load(daemon, 8) as lost:
        failed = daemon.wait_for("reload failed")
        assert failed["outcome"] == "rolled_back"
        assert daemon.pids("web") == before
    assert lost == []
    assert daemon.service("web")["state"] == "ready"
