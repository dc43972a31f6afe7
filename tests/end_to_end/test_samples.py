"""Every sample runs as its README says."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest

from support.harness import DEADLINE, Servd, ServdProcess, free_port

SAMPLES = Path(__file__).parents[2] / "sample-configs"


def run_sample(servd: Servd, name: str, config: str = "servd.toml") -> tuple[ServdProcess, int]:
    """The sample, in a copy of its folder and on a port of its own."""
    folder = servd.folder / name
    shutil.copytree(SAMPLES / name, folder, ignore=shutil.ignore_patterns("__pycache__", "run"))
    port = free_port()
    if (folder / "make-certs.sh").exists():
        subprocess.run(["sh", "make-certs.sh"], cwd=folder, check=True, capture_output=True)
    daemon = servd.run("--config", config, environ={"PORT": str(port)}, folder=folder)
    return daemon.ready(), port


def test_minimal(servd: Servd) -> None:
    daemon, port = run_sample(servd, "minimal")
    answer = httpx.get(f"http://127.0.0.1:{port}/?name=you", timeout=DEADLINE)
    assert answer.json() == {"hello": "you"}
    assert daemon.stop() == 0


@pytest.mark.parametrize("config", ["servd.toml", "servd.yaml"])
def test_gateway_answers_through_all_three_services(servd: Servd, config: str) -> None:
    daemon, port = run_sample(servd, "gateway", config)
    url = f"http://127.0.0.1:{port}/search"
    answer = httpx.get(url, params={"q": "why does bread rise"}, timeout=DEADLINE)
    assert answer.status_code == 200, daemon.output
    body = answer.json()
    answered = {process["service"]: process["pid"] for process in body["answered_by"]}
    assert set(answered) == {"gateway", "tokenizer", "ranker"}
    for name, pid in answered.items():
        assert pid in daemon.workers(name).values()
    assert body["tokens"]
    assert body["documents"]
    for name in ("tokenizer", "ranker"):
        assert daemon.wait_for("request", service=name)
    assert daemon.stop() == 0


def test_both_files_of_the_gateway_say_the_same() -> None:
    from servd import load

    folder = SAMPLES / "gateway"
    assert load(folder / "servd.toml") == load(folder / "servd.yaml")


def test_tls_with_client_certificates(servd: Servd) -> None:
    daemon, port = run_sample(servd, "tls")
    certificates = servd.folder / "tls" / "certs"
    context = ssl.create_default_context(cafile=certificates / "ca.pem")
    url = f"https://localhost:{port}/"
    with pytest.raises((httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError)):
        httpx.get(url, verify=context, timeout=DEADLINE)
    context.load_cert_chain(certificates / "client.pem", certificates / "client.key")
    assert httpx.get(url, verify=context, timeout=DEADLINE).status_code == 200
    assert daemon.stop() == 0


@pytest.mark.skipif(
    shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") is None, reason="needs nginx"
)
def test_nginx_in_front_of_a_service(servd: Servd) -> None:
    daemon, port = run_sample(servd, "nginx")
    assert httpx.get(f"http://127.0.0.1:{port}/", timeout=DEADLINE).status_code == 200
    assert (
        httpx.get(f"http://127.0.0.1:{port}/api/hello", timeout=DEADLINE).json()["hello"] == "world"
    )
    assert daemon.stop() == 0


def test_a_program_that_takes_its_socket(servd: Servd) -> None:
    daemon, port = run_sample(servd, "socket-activation")
    assert httpx.get(f"http://127.0.0.1:{port}/", timeout=DEADLINE).status_code == 200
    assert daemon.stop() == 0


@pytest.mark.parametrize("config", sorted(SAMPLES.glob("*/servd.*")), ids=lambda p: p.parent.name)
def test_every_sample_names_the_schema_for_editors(config: Path) -> None:
    first = config.read_text().splitlines()[0]
    marks = ("#:schema ", "# yaml-language-server: $schema=")
    assert first.startswith(marks)
    reference = first.rpartition(" ")[2].rpartition("=")[2]
    assert (config.parent / reference).resolve() == SAMPLES.parent / "schemas/servd.schema.json"
