"""Nothing that a BentoML service has under way is lost while its workers are replaced."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable
from typing import Any

import httpx
from websockets.sync.client import connect

from support.harness import DEADLINE, Servd, ServdProcess, wait_until
from support.with_bentoml import PYTHON, copied, environ

CONFIG = f"""
    [services.all]
    bento = "service:Everything"
    listen = "127.0.0.1:0"
    python = "{PYTHON}"
    timeouts = {{ drain = "{DEADLINE}s" }}
"""


def served(servd: Servd) -> ServdProcess:
    copied("everything", servd.folder)
    return servd(CONFIG, environ=environ(servd.folder)).ready()


def asked(url: str, path: str, **body: Any) -> httpx.Response:
    answer = httpx.post(url + path, json=body, timeout=DEADLINE)
    assert answer.status_code == 200, answer.text
    return answer


def double(url: str) -> int:
    (pair,) = asked(url, "/double", numbers=[21]).json()
    assert pair[0] == 42
    size: int = pair[1]
    return size


def stream(url: str) -> int:
    assert asked(url, "/count", upto=10).text == "".join(f"{n} " for n in range(10))
    return 1


def test_batches_streams_and_tasks_survive_rolls_and_scales(servd: Servd) -> None:
    daemon = served(servd)
    url = daemon.url("all")
    over = threading.Event()
    tasks: list[str] = []

    def repeat(act: Callable[[str], int]) -> list[int]:
        found: list[int] = []
        while not over.is_set():
            found.append(act(url))
        return found

    def submit(url: str) -> int:
        tasks.append(asked(url, "/spell/submit", word="bread", seconds=0.2).json()["task_id"])
        return 1

    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        acts = [double] * 6 + [stream] * 3 + [submit]
        found = [pool.submit(repeat, act) for act in acts]
        try:
            for shade in ("red", "green"):
                report = daemon.reload(f'{CONFIG}\nenv = {{ SHADE = "{shade}" }}\n')
                assert [change["kind"] for change in report["changes"]] == ["roll"]
            assert daemon.cli("scale", "all=1").returncode == 0
            assert daemon.cli("scale", "all=2").returncode == 0
            assert daemon.cli("restart", "all").returncode == 0
        finally:
            over.set()
        counts = [each.result() for each in found]
    assert all(counts)
    assert max(size for sizes in counts[:6] for size in sizes) > 1  # some were a batch
    wait_until(lambda: {result(url, task) for task in tasks} == {"daerb"}, "all results of tasks")
    asked_for = sum(map(len, counts[:6]))
    daemon.samples()  # folds the files of workers that are gone
    assert total(url, "/double") == asked_for, "the metrics of workers that are gone"


def result(url: str, task: str) -> str:
    answer = httpx.get(f"{url}/spell/get", params={"task_id": task}, timeout=DEADLINE)
    return answer.text if answer.status_code == 200 else ""


def total(url: str, endpoint: str) -> float:
    found = 0.0
    for line in httpx.get(f"{url}/metrics", timeout=DEADLINE).text.splitlines():
        if line.startswith("bentoml_service_request_total") and f'endpoint="{endpoint}"' in line:
            found += float(line.rpartition(" ")[2])
    return found


def test_a_task_under_way_is_finished_by_the_worker_that_has_it(servd: Servd) -> None:
    """Its successor has the result."""
    daemon = served(servd)
    url = daemon.url("all")
    task = asked(url, "/spell/submit", word="bread", seconds=3).json()["task_id"]
    before = daemon.pids("all")
    assert daemon.reload(CONFIG + 'env = { SHADE = "red" }\n')["outcome"] == "applied"
    assert not set(daemon.pids("all")) & set(before)
    wait_until(lambda: result(url, task) == "daerb", "the result")


def test_a_websocket_lasts_through_a_roll(servd: Servd) -> None:
    daemon = served(servd)
    url = daemon.url("all")
    with connect(f"{url.replace('http', 'ws')}/sockets/echo") as socket:
        socket.send("one")
        assert socket.recv(DEADLINE) == "one"
        pool = concurrent.futures.ThreadPoolExecutor(1)
        reload = pool.submit(daemon.reload, CONFIG + 'env = { SHADE = "red" }\n')
        daemon.wait_for("worker draining")
        socket.send("two")
        assert socket.recv(DEADLINE) == "two"
    assert reload.result(DEADLINE)["outcome"] == "applied"
