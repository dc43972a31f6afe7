"""Services that run elsewhere."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trustme

from support.elsewhere import Elsewhere
from support.harness import Servd, wait_until

APP = """
    import servd
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/")
    async def called():
        return (await servd.depends("far").get("/it")).text

    @app.get("/sync")
    def called_sync():
        return servd.depends_sync("far").get("/it").text

    @app.get("/alone")
    async def alone():
        return "alone"
"""

CONFIG = """
    [admin]
    metrics = "127.0.0.1:{metrics}"
    [services.far]
    external = "{url}"
    {more}
    [services.web]
    app = "main:app"
    listen = "127.0.0.1:0"
    depends_on = "far"
"""

PROBED = 'health = { path = "/healthz", interval = "100ms", timeout = "30s", failures = 2 }'


@pytest.fixture
def far() -> Iterator[Elsewhere]:
    with Elsewhere() as place:
        yield place


def config(url: str, more: str = PROBED, metrics: int = 0) -> str:
    return CONFIG.format(url=url, more=more, metrics=metrics)


def here(far: Elsewhere, scheme: str = "http") -> str:
    return f"{scheme}://localhost:{far.port}"


def test_dependents_wait_for_it_and_outlive_it(servd: Servd, far: Elsewhere) -> None:
    far.stop()
    daemon = servd(config(here(far)), main_py=APP)
    daemon.wait_for("service starting", service="far")
    wait_until(lambda: daemon.service("far")["error"], "the reason why it does not answer")
    waiting = {s["name"]: s for s in daemon.status()["services"]}
    assert waiting["far"]["error"] == "GET /healthz failed: Connection refused"
    assert (waiting["far"]["state"], waiting["far"]["kind"]) == ("starting", "external")
    assert (waiting["web"]["state"], waiting["web"]["processes"]) == ("waiting", [])
    assert daemon.metric("servd_external_up", service="far") == 0
    far.start()
    daemon.ready()
    assert far.hosts == {f"localhost:{far.port}"}
    assert daemon.get("web").json() == daemon.get("web", "/sync").json() == "from elsewhere"
    status = daemon.service("far")
    assert (status["state"], status["listen"]) == ("ready", [here(far)])
    assert status["workers"] == {"desired": 1, "ready": 1}
    assert daemon.metric("servd_external_up", service="far") == 1
    assert daemon.metric("servd_workers", service="far", state="ready") is None
    far.broken.add("/healthz")
    wait_until(lambda: daemon.service("far")["state"] == "degraded", "that it is down is seen")
    assert daemon.service("far")["error"] == "GET /healthz returned 500"
    assert daemon.get("web", "/alone").json() == "alone"
    ready = daemon.ask("GET", "/readyz?verbose")
    assert ready.text.splitlines() == ["[-] far degraded", "[+] web ready", "ready"]
    far.broken.clear()
    wait_until(lambda: daemon.service("far")["state"] == "ready", "that it is back is seen")
    assert daemon.service("far")["error"] is None
    assert daemon.stop() == 0


def test_without_health_it_is_ready_when_it_accepts(servd: Servd, far: Elsewhere) -> None:
    daemon = servd(config(here(far), more=""), main_py=APP).ready()
    assert not far.hosts, "nothing was asked"
    assert daemon.get("web").json() == "from elsewhere"
    for command in ("status", "graph"):
        assert "external" in daemon.cli(command).stdout


def test_a_reload_to_what_does_not_answer_is_undone(servd: Servd, far: Elsewhere) -> None:
    daemon = servd(config(here(far)), main_py=APP).ready()
    before = daemon.pids("web")
    with Elsewhere(text="from there") as there:
        there.stop()
        moved = config(here(there), f"{PROBED}\ntimeouts.startup = '1s'")
        report = daemon.reload(moved)
        assert report["outcome"] == "rolled_back"
        said = f"{here(there)} did not answer within 1 s (timeouts.startup)"
        assert report["detail"] == f"far: {said}: GET /healthz failed: Connection refused"
        assert daemon.get("web").json() == "from elsewhere"
        assert daemon.pids("web") == before
        there.start()
        report = daemon.reload()
        assert [(c["service"], c["kind"]) for c in report["changes"]] == [
            ("far", "roll"),
            ("web", "roll"),
        ]
        assert daemon.get("web").json() == "from there"
        far.stop()
        report = daemon.reload(moved.replace("failures = 2", "failures = 3"))
        assert [(c["service"], c["kind"]) for c in report["changes"]] == [("far", "live")]


def test_one_that_is_down_and_unchanged_fails_no_reload(servd: Servd, far: Elsewhere) -> None:
    daemon = servd(config(here(far)), main_py=APP).ready()
    far.stop()
    wait_until(lambda: daemon.service("far")["state"] == "degraded", "that it is down is seen")
    report = daemon.reload(config(here(far)) + 'env = { A = "1" }\n')
    assert report["outcome"] == "applied"
    assert [c["service"] for c in report["changes"]] == ["web"]


def test_new_code_is_rolled_everywhere_while_it_is_down(servd: Servd, far: Elsewhere) -> None:
    daemon = servd(config(here(far)), main_py=APP).ready()
    far.stop()
    wait_until(lambda: daemon.service("far")["state"] == "degraded", "that it is down is seen")
    for command in (("restart", "--all"), ("reload", "--roll")):
        before = daemon.pids("web")
        done = daemon.cli(*command)
        assert done.returncode == 0, done.stderr
        assert set(before).isdisjoint(daemon.pids("web"))


def test_the_path_of_its_url_is_shown_nowhere(servd: Servd, far: Elsewhere) -> None:
    far.stop()
    secret = "timeouts.startup = '1s'"
    daemon = servd(
        config(here(far) + "/${FAR_TOKEN}", secret),
        main_py=APP,
        environ={"FAR_TOKEN": "of-nobodys-business"},
    )
    daemon.wait_for("service cannot start", service="far")
    assert here(far) in str(daemon.service("far"))
    far.start()
    daemon.ready()
    wait_until(lambda: daemon.pids("web"), "the dependent starts")
    far.stop()
    wait_until(lambda: daemon.get("web").status_code == 500, "a call fails")
    shown = daemon.output + str(daemon.status()) + daemon.cli("graph").stdout
    assert "of-nobodys-business" not in shown


def test_it_is_stopped_and_started_and_never_scaled(servd: Servd, far: Elsewhere) -> None:
    daemon = servd(config(here(far)), main_py=APP).ready()
    scaled = daemon.cli("scale", "far=2")
    assert scaled.returncode == 1
    assert "far runs elsewhere" in scaled.stderr
    assert daemon.cli("stop", "far", "--cascade").returncode == 0
    assert [s["state"] for s in daemon.status()["services"]] == ["stopped", "stopped"]
    assert daemon.cli("start", "web").returncode == 0
    (url,) = daemon.service("web")["listen"]  # a port of its own again
    assert httpx.get(url).json() == "from elsewhere"
    assert daemon.cli("restart", "--all").returncode == 0
    answer = daemon.upgrade()
    assert answer["outcome"] == "replaced", answer
    assert httpx.get(url).json() == "from elsewhere"


def test_its_certificate_is_verified_and_clients_show_their_own(
    servd: Servd, tmp_path: Path
) -> None:
    ours, others = trustme.CA(), trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ours.issue_cert("localhost").configure_cert(context)
    context.verify_mode = ssl.CERT_REQUIRED
    ours.configure_trust(context)
    client = ours.issue_cert("client")
    tls = 'tls = { ca_certs = "ca.pem", certfile = "client.pem", keyfile = "client.key" }'
    servd.watching = True
    with Elsewhere(context) as far:
        daemon = servd(
            config(here(far, "HTTPS"), f"{PROBED}\n{tls}"),
            main_py=APP,
            ca_pem=others.cert_pem.bytes().decode(),
            client_pem=client.cert_chain_pems[0].bytes().decode(),
            client_key=client.private_key_pem.bytes().decode(),
        )
        daemon.wait_for("service starting", service="far")
        wait_until(lambda: daemon.service("far")["error"], "the reason why it is not trusted")
        assert "the certificate is not trusted" in daemon.service("far")["error"]
        (servd.folder / "ca.pem").write_bytes(ours.cert_pem.bytes())
        daemon.ready()
        assert daemon.get("web").json() == daemon.get("web", "/sync").json() == "from elsewhere"
        before = daemon.pids("web")
        (servd.folder / "ca.pem").write_bytes(ours.cert_pem.bytes() + others.cert_pem.bytes())
        wait_until(
            lambda: set(before).isdisjoint(daemon.pids("web") or before), "dependents are rolled"
        )
        report = daemon.status()["last_reload"]
        assert [c["service"] for c in report["changes"]] == ["far", "web"]
        assert daemon.get("web").json() == "from elsewhere"
        with pytest.raises(httpx.TransportError):
            httpx.get(here(far, "https"), verify=ssl.create_default_context())
