"""`/metrics`: what the daemon counts is what clients saw, whatever happened to the workers."""

from __future__ import annotations

import asyncio
import collections
import os
import signal
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import trustme

from support.harness import Servd, ServdProcess, free_port, samples_of, wait_until

PLAIN = """
    async def app(scope, receive, send):
        assert scope["type"] == "http"
        status = int(scope["query_string"] or 200)
        await send({"type": "http.response.start", "status": status,
                    "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
"""

COUNTS_ITSELF = """
    from fastapi import FastAPI
    from prometheus_client import Counter, Gauge, Histogram

    app = FastAPI()
    hellos = Counter("hellos", "Greetings.", ["who", "service"])
    level = Gauge("level", "A level.")
    took = Histogram("took_seconds", "Time.", buckets=(1, 2))
    OURS = Counter("servd_requests", "Not the app's to say.")

    @app.get("/")
    async def hello():
        hellos.labels("you", "app").inc()
        OURS.inc(1000)
        level.set(7)
        took.observe(1.5)
        return {}
"""

WEB = """
    [services.web]
    app = "main:app"
    listen = "127.0.0.1:0"
    log.access = false
    {}
"""


def answered(daemon: ServdProcess) -> dict[str, float]:
    """servd_requests_total by method and code."""
    return {
        f"{dict(labels)['method']} {dict(labels)['code']}": count
        for (name, labels), count in daemon.samples().items()
        if name == "servd_requests_total"
    }


async def ask(
    url: str,
    count: int,
    enough: asyncio.Event,
    statuses: collections.Counter[str],
    clients: int = 16,
) -> int:
    """Asks `count` times, and on until it is `enough`, each client on a connection of its own.
    Counts the answers by their status, and returns how many requests were broken off.
    """
    place = urlsplit(url)
    left, broken = count, 0

    async def client() -> None:
        nonlocal left, broken
        streams = None
        while left > 0 or not enough.is_set():
            left -= 1
            try:
                if streams is None:
                    streams = await asyncio.open_connection(place.hostname, place.port)
                reader, writer = streams
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(2)
            except (OSError, EOFError):
                broken += 1
                if streams is not None:
                    streams[1].close()
                streams = None
                continue
            statuses[head.split(b" ", 2)[1].decode()] += 1
            if b"connection: close" in head.lower():
                writer.close()
                streams = None
        if streams is not None:
            streams[1].close()
            await streams[1].wait_closed()

    await asyncio.gather(*(client() for _ in range(clients)))
    return broken


def counted_over_rolls_and_a_kill(servd: Servd, count: int) -> None:
    daemon = servd(WEB.format("workers = 2"), main_py=PLAIN).ready()

    statuses: collections.Counter[str] = collections.Counter()

    def asked(more: int) -> None:
        wait_until(lambda: statuses.total() > more, "it is being asked")

    async def work() -> int:
        enough = asyncio.Event()
        asking = asyncio.ensure_future(ask(daemon.url("web"), count, enough, statuses))
        for act in ("roll", "kill", "roll"):
            await asyncio.to_thread(asked, statuses.total() + 100)
            if act == "roll":
                report = await asyncio.to_thread(daemon.reload, roll=True)
                assert report["outcome"] == "applied"
            else:
                pids = await asyncio.to_thread(daemon.pids, "web")
                os.kill(pids[0], signal.SIGKILL)
        enough.set()
        return await asking

    broken = asyncio.run(work())
    assert broken <= 16, "at most one for each client's connection to the killed worker"
    wait_until(lambda: not daemon.service("web")["draining"], "the old generations are gone")
    counts = answered(daemon)
    print(f"client: {dict(statuses)}, {broken} broken off; servd: {counts}")
    assert statuses.keys() == {"200"}
    # what was in flight in the killed worker may or may not have been counted
    assert statuses["200"] <= counts["GET 200"] <= statuses["200"] + broken
    assert daemon.metric("servd_worker_restarts_total", service="web", reason="signal") == 1
    assert daemon.metric("servd_request_duration_seconds_count", service="web") == sum(
        counts.values()
    )
    assert daemon.metric("servd_reloads_total", outcome="applied") == 2
    assert daemon.metric("servd_requests_in_flight", service="web") == 0


def test_requests_are_counted_across_rolls_and_a_kill(servd: Servd) -> None:
    counted_over_rolls_and_a_kill(servd, 3_000)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_hundred_thousand_requests_are_counted_across_rolls_and_a_kill(servd: Servd) -> None:
    counted_over_rolls_and_a_kill(servd, 100_000)


def test_methods_and_codes_are_told_apart_and_strange_ones_make_no_new_series(
    servd: Servd,
) -> None:
    daemon = servd(WEB.format(""), main_py=PLAIN).ready()
    url = daemon.url("web")
    for method, code in (("GET", 200), ("POST", 201), ("PUT", 404), ("PROPFIND", 207)):
        assert httpx.request(method, f"{url}/?{code}").status_code == code
    assert answered(daemon) == {"GET 200": 1, "POST 201": 1, "PUT 404": 1, "_OTHER 207": 1}


def test_metrics_have_an_address_of_their_own_that_a_reload_moves(servd: Servd) -> None:
    first, second = free_port(), free_port()
    config = '[admin]\nmetrics = "127.0.0.1:{}"\n' + WEB.format("").replace("\n    ", "\n")
    daemon = servd(config.format(first), main_py=PLAIN).ready()
    answer = httpx.get(f"http://127.0.0.1:{first}/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    names = {name for name, _ in samples_of(answer.text)}
    assert {
        "servd_build_info",
        "servd_config_last_reload_successful",
        "servd_log_lines_dropped_total",
        "servd_reload_duration_seconds_count",
        "servd_reloads_total",
        "servd_request_duration_seconds_bucket",
        "servd_requests_in_flight",
        "servd_requests_rejected_total",
        "servd_worker_memory_bytes",
        "servd_workers",
    } <= names
    for path in ("/v1/status", "/", "/v1/reload"):
        assert httpx.get(f"http://127.0.0.1:{first}{path}").status_code == 404
    accept = {"accept": "application/openmetrics-text; version=1.0.0"}
    openmetrics = httpx.get(f"http://127.0.0.1:{first}/metrics", headers=accept)
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    assert openmetrics.text.endswith("# EOF\n")

    assert daemon.reload(config.format(second))["outcome"] == "applied"
    assert httpx.get(f"http://127.0.0.1:{second}/metrics").status_code == 200
    with pytest.raises(httpx.ConnectError):
        wait_until(lambda: httpx.get(f"http://127.0.0.1:{first}/metrics") and None, "it is gone")


def test_an_address_that_is_taken_undoes_the_reload(servd: Servd) -> None:
    config = '[admin]\nmetrics = "127.0.0.1:{}"\n' + WEB.format("").replace("\n    ", "\n")
    port = free_port()
    daemon = servd(config.format(port), main_py=PLAIN).ready()
    taken = urlsplit(daemon.url("web")).port
    answer = daemon.reload(config.format(taken))
    assert answer["outcome"] == "rolled_back"
    assert "admin.metrics: cannot listen on" in answer["detail"]
    assert httpx.get(f"http://127.0.0.1:{port}/metrics").status_code == 200
    assert daemon.metric("servd_config_last_reload_successful") == 0


def test_the_expiry_of_certificates_is_shown(servd: Servd) -> None:
    certificate = trustme.CA().issue_cert("localhost")
    daemon = servd(
        WEB.format('tls = { certfile = "cert.pem", keyfile = "key.pem" }'),
        main_py=PLAIN,
        cert_pem=certificate.cert_chain_pems[0].bytes().decode(),
        key_pem=certificate.private_key_pem.bytes().decode(),
    ).ready()
    from cryptography import x509

    pem = certificate.cert_chain_pems[0].bytes()
    expiry = x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp()
    name = "servd_tls_certificate_expiry_timestamp_seconds"
    assert daemon.metric(name, service="web") == expiry


def test_what_an_app_counts_itself_is_merged_and_survives_its_workers(servd: Servd) -> None:
    daemon = servd(WEB.format("workers = 2"), main_py=COUNTS_ITSELF).ready()
    url = daemon.url("web")

    def hellos() -> float | None:
        labels = {"service": "web", "who": "you", "exported_service": "app"}
        return daemon.metric("hellos_total", **labels)

    folder = daemon.runtime / "m" / "web"
    assert folder.stat().st_mode & 0o777 == 0o700
    total = 0
    for _ in range(3):
        for _ in range(20):
            assert httpx.get(url).status_code == 200
        total += 20
        assert hellos() == total
        assert daemon.metric("took_seconds_bucket", service="web", le="2.0") == total
        before = set(map(str, daemon.pids("web")))
        assert daemon.reload(roll=True)["outcome"] == "applied"
        wait_until(lambda: not daemon.service("web")["draining"], "the old generation is gone")
        assert hellos() == total
        levels = {dict(labels)["pid"] for name, labels in daemon.samples() if name == "level"}
        assert levels.isdisjoint(before), "gauges of the dead vanish"
        left = {path.name.rpartition("_")[2] for path in folder.iterdir()}
        living = {f"{pid}.db" for pid in daemon.pids("web")}
        assert left <= {*living, "0.db"}, "the folder does not grow"
    assert daemon.metric("servd_requests_total", service="web", method="GET", code="200") == total


def test_damaged_files_of_an_app_are_left_out(servd: Servd) -> None:
    daemon = servd(WEB.format(""), main_py=COUNTS_ITSELF).ready()
    httpx.get(daemon.url("web"))
    folder = daemon.runtime / "m" / "web"
    (pid,) = daemon.pids("web")
    (folder / f"counter_{pid}.db").write_bytes(b"\xff" * 5000)
    (folder / f"summary_{pid}.db").symlink_to("/etc/passwd")
    os.mkfifo(folder / f"gauge_all_{os.getpid()}.db")
    assert daemon.metric("level", service="web", pid=str(pid)) == 7
    assert daemon.metric("hellos_total", service="web") is None


def test_an_app_may_have_a_folder_of_its_own_or_none(servd: Servd) -> None:
    (servd.folder / "mine").mkdir()
    daemon = servd(
        """
        [services.mine]
        app = "main:app"
        listen = "127.0.0.1:0"
        env = { PROMETHEUS_MULTIPROC_DIR = "mine" }

        [services.none]
        app = "main:app"
        listen = "127.0.0.1:0"
        env = { PROMETHEUS_MULTIPROC_DIR = "" }
        """,
        main_py=COUNTS_ITSELF,
    ).ready()
    assert list(Path(servd.folder / "mine").iterdir())
    httpx.get(daemon.url("none"))
    assert not (daemon.runtime / "m" / "none").exists()
    assert daemon.metric("level", service="none") is None


def test_status_shows_what_workers_do(servd: Servd) -> None:
    daemon = servd(WEB.format(""), main_py=PLAIN).ready()
    for _ in range(3):
        httpx.get(daemon.url("web"))
    (process,) = daemon.service("web")["processes"]
    assert process["requests"] == 3
    assert process["in_flight"] == 0
    assert process["cpu_percent"] >= 0
    assert process["rss_bytes"] > 1_000_000
