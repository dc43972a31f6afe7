"""The sample of models: an engine, an app and a BentoML service on GPUs that a file describes."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import httpx
import pytest

from support.gpus import GIB, FakeGpus
from support.harness import DEADLINE, Servd, ServdProcess, free_port, wait_until
from support.with_bentoml import PYTHON

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "sample-configs" / "models"
PAGE = ROOT / "docs" / "how-to" / "models.md"


def _started(servd: Servd, gpus: FakeGpus) -> ServdProcess:
    folder = servd.folder / "models"
    shutil.copytree(SAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    config = (folder / "servd.toml").read_text()
    config = config.replace('bento = "words:Words"', f'bento = "words:Words"\npython = "{PYTHON}"')
    (folder / "servd.toml").write_text(config.replace('interval = "30s"', 'interval = "200ms"'))
    ports = {f"{name}_PORT": str(free_port()) for name in ("LLM", "SENTIMENT", "WORDS")}
    environ = {**gpus.environ, **ports, "PYTHON": PYTHON}
    return servd.run("--config", "servd.toml", environ=environ, folder=folder).ready()


def _ask(daemon: ServdProcess, service: str, path: str, body: object) -> httpx.Response:
    (url,) = daemon.service(service)["listen"]
    return httpx.post(f"{url}{path}", json=body, timeout=DEADLINE)


@pytest.mark.slow
def test_models_of_three_kinds_share_the_gpus_of_a_machine(servd: Servd) -> None:
    gpus = FakeGpus(servd.folder / "gpus.json", 2)
    daemon = _started(servd, gpus)
    told = _ask(daemon, "llm", "/v1/completions", {"prompt": "x", "max_tokens": 3})
    assert told.json() == {"choices": [{"text": "server that loses"}]}
    said = _ask(daemon, "sentiment", "/predict", {"text": "good and fast"}).json()
    assert (said["score"], said["gpu"]) == (2.0, "1")
    assert _ask(daemon, "words", "/count", {"text": "a b a"}).json() == {"a": 2, "b": 1}
    (warm,) = daemon.find("worker warmed up", service="llm")
    assert warm["requests"] == 2

    (front,) = daemon.pids("llm")
    gpus.allocate("0", front, 61 * GIB)
    wait_until(
        lambda: daemon.service("llm")["processes"][0]["gpus"][0]["memory_bytes"] == 61 * GIB,
        "its memory is measured",
    )
    children = Path(f"/proc/{front}/task/{front}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    replaced = daemon.wait_for("worker recycle requested", service="llm")
    assert "returned 500" in replaced["error"]
    wait_until(lambda: daemon.pids("llm") not in ([], [front]), "another front")
    wait_until(lambda: daemon.service("llm")["state"] == "ready", "it is ready")
    told = _ask(daemon, "llm", "/v1/completions", {"prompt": "x", "max_tokens": 1})
    assert told.json() == {"choices": [{"text": "server"}]}
    assert daemon.stop() == 0


def test_the_page_shows_the_files_of_the_sample() -> None:
    page = PAGE.read_text()
    for name in ("completion.http", "engine.py", "sentiment.py", "words.py", "servd.toml"):
        lines = (SAMPLE / name).read_text().splitlines()
        shown = "\n".join(line for line in lines if not line.startswith("#:schema"))
        assert f'title="{name}"\n{shown}\n```' in page, name
