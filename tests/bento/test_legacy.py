"""Services of BentoML 1.1: their API server and their runners are services of the graph."""

from __future__ import annotations

import concurrent.futures
import threading
from pathlib import Path
from typing import Any

import httpx

from support.harness import DEADLINE, Servd, ServdProcess, free_port, wait_until
from support.with_bentoml import PYTHON, copied, environ

CONFIG = f"""
    [services.old]
    bento = "service:svc"
    listen = "127.0.0.1:0"
    python = "{PYTHON}"
    workers = 2
"""


def legacy(servd: Servd, config: str = CONFIG) -> ServdProcess:
    copied("legacy", servd.folder)
    return servd(config, environ=environ(servd.folder)).ready()


def asked(url: str, path: str, body: Any) -> Any:
    answer = httpx.post(url + path, json=body, timeout=DEADLINE)
    assert answer.status_code == 200, answer.text
    return answer.json()


def words(folder: Path) -> list[str]:
    return sorted((folder / "hooks").read_text().split())


def test_each_runner_that_is_not_embedded_is_a_service(servd: Servd) -> None:
    daemon = legacy(servd)
    services = {s["name"]: s for s in daemon.status()["services"]}
    assert services.keys() == {"old", "old.doubler"}
    assert services["old"]["depends_on"] == ["old.doubler"]
    assert services["old.doubler"]["workers"] == {"desired": 2, "ready": 2}
    assert services["old.doubler"]["listen"] == []
    url = daemon.url("old")
    assert asked(url, "/double", 4) == [8, 1]
    assert httpx.post(f"{url}/count", json=3, timeout=DEADLINE).text == "0 1 2 "
    text, pid = httpx.post(f"{url}/repeat", content="hi", timeout=DEADLINE).text.split()
    assert text == "hi"
    assert int(pid) in daemon.pids("old")
    assert daemon.stop() == 0
    assert daemon.leftovers() == []
    assert words(servd.folder) == ["deployed", "started", "started", "stopped", "stopped"]


def shades(daemon: ServdProcess) -> dict[int, tuple[str, str]]:
    """What each worker of the runner has of its strategy."""
    found: dict[int, tuple[str, str]] = {}
    workers = set(daemon.pids("old.doubler"))
    while found.keys() != workers:
        about = asked(daemon.url("old"), "/about", "")
        assert about["server"] in daemon.pids("old")
        found[about["pid"]] = (about["shade"], about["gpu"])
    return found


def test_the_strategy_of_a_runner_sets_the_variables_of_its_workers(servd: Servd) -> None:
    daemon = legacy(servd)
    found = shades(daemon)
    assert sorted(found.values()) == [("shade-0", "0"), ("shade-1", "1")]


def test_the_file_outranks_the_strategy(servd: Servd) -> None:
    component = '[services.old.components.doubler]\nworkers = 1\nenv = { SHADE = "written" }\n'
    daemon = legacy(servd, CONFIG + component)
    assert list(shades(daemon).values()) == [("written", "0")]


def test_requests_to_a_runner_are_batched_and_counted(servd: Servd) -> None:
    daemon = legacy(servd)
    url = daemon.url("old")
    for _ in range(20):
        asked(url, "/double", 1)  # the batching learns how long a call takes
    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        sizes = list(pool.map(lambda n: asked(url, "/double", n), range(256)))
    assert [double for double, _ in sizes] == [2 * n for n in range(256)]
    assert max(size for _, size in sizes) > 1
    exposed = httpx.get(f"{url}/metrics", timeout=DEADLINE).text
    assert 'bentoml_runner_adaptive_batch_size_count{method_name="double"' in exposed
    assert daemon.metric("servd_requests_total", service="old.doubler", method="POST", code="200")


def test_no_request_is_lost_while_runners_and_servers_are_replaced(servd: Servd) -> None:
    daemon = legacy(servd)
    over = threading.Event()
    url = daemon.url("old")

    def ask(_: int) -> list[str]:
        failures: list[str] = []
        with httpx.Client(timeout=DEADLINE) as client:
            while not over.is_set():
                try:
                    answer = client.post(f"{url}/double", json=3)
                    if answer.status_code != 200:
                        failures.append(f"{answer.status_code}: {answer.text}")
                except httpx.RemoteProtocolError as error:
                    if "Server disconnected without" not in str(error):  # an idle connection
                        failures.append(repr(error))
        return failures

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = [pool.submit(ask, n) for n in range(4)]
        try:
            for shade in ("red", "green", "blue"):
                env = f'env = {{ SHADE = "{shade}" }}\n'
                report = daemon.reload(f"{CONFIG}[services.old.components.doubler]\n{env}")
                assert [(c["service"], c["kind"]) for c in report["changes"]] == [
                    ("old.doubler", "roll")
                ]
            assert daemon.cli("restart", "old").returncode == 0
        finally:
            over.set()
    assert [each.result() for each in found] == [[], [], [], []]


def test_serve_tells_it_from_an_app_and_development_embeds_the_runners(servd: Servd) -> None:
    copied("legacy", servd.folder)
    port = str(free_port())
    daemon = servd.run(
        "serve", "service:svc", "--port", port, "--development",
        interpreter=PYTHON, environ=environ(servd.folder),
    )  # fmt: skip
    wait_until(lambda: "servd ready" in daemon.output, "the daemon is ready")
    assert [s["name"] for s in daemon.status()["services"]] == ["svc"]
    assert asked(f"http://127.0.0.1:{port}", "/double", 4)[0] == 8
    about = asked(f"http://127.0.0.1:{port}", "/about", "")
    assert about["pid"] == about["server"]


def test_configuration_of_bentoml_is_what_the_servers_have(servd: Servd) -> None:
    copied("legacy", servd.folder)
    (servd.folder / "settings.yaml").write_text(
        "api_server:\n  workers: 3\n  traffic: {timeout: 7, max_concurrency: 5}\n"
        "runners:\n  doubler: {traffic: {timeout: 9}}\n"
    )
    config = CONFIG.replace("workers = 2", "")
    settings = {"BENTOML_CONFIG": str(servd.folder / "settings.yaml")}
    daemon = servd(config, environ={**environ(servd.folder), **settings}).ready()
    assert len(daemon.pids("old")) == 3
    assert asked(daemon.url("old"), "/double", 4)[0] == 8
