"""servd and BentoML in one environment, where kantoku's files lie over those of circus."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import httpx

from support.harness import DEADLINE, Servd, wait_until
from support.with_bentoml import PYTHON, copied, environ

CONFIG = """
    [services.gw]
    bento = "service:Gateway"
    listen = "127.0.0.1:0"
    [services.broken]
    command = ["false"]
    restart = { backoff = "100ms" }
"""


def test_the_files_are_kantokus() -> None:
    code = "import circus, json; print(json.dumps([circus.__version__, circus.__file__]))"
    done = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=True)
    version, _ = json.loads(done.stdout)
    assert version.startswith("0.18.")


def test_servd_runs_on_them_as_on_its_own(servd: Servd) -> None:
    """kantoku ends everything as soon as one watcher has no process: it must not happen here."""
    copied("graph", servd.folder)
    servd.write(servd_toml=CONFIG)
    daemon = servd.run("--config", "servd.toml", environ=environ(servd.folder), interpreter=PYTHON)
    wait_until(lambda: daemon.find("service ready", service="gw"), "gw is ready")
    wait_until(
        lambda: len(daemon.find("worker exited", service="broken")) >= 3, "broken died often"
    )

    def rate() -> object:
        body = {"text": "why does bread rise"}
        return httpx.post(daemon.url("gw") + "/rate", json=body, timeout=DEADLINE).json()

    assert rate() == {"words": 4.0, "score": 4.0}
    first = daemon.pids("gw.scorer")
    os.kill(first[0], signal.SIGKILL)
    wait_until(lambda: daemon.pids("gw.scorer") not in (first, []), "another scorer")
    wait_until(lambda: daemon.service("gw.scorer")["state"] == "ready", "it is ready")
    report = daemon.reload(CONFIG + "[services.gw.components.Tokenizer]\nworkers = 1\n")
    assert report["outcome"] == "applied"
    daemon.act("gw", "restart")
    assert rate() == {"words": 4.0, "score": 4.0}
    assert daemon.stop() == 0
    assert daemon.leftovers() == []


def test_it_says_what_to_do_once_kantoku_has_taken_the_files_along(servd: Servd) -> None:
    """As `pip uninstall kantoku` does, though circus is still installed."""
    servd.write(servd_toml='[services.web]\ncommand = ["sleep", "100"]\n')
    gone = "import sys; sys.modules['circus'] = None; from servd.cli.main import main; main()"
    done = subprocess.run(
        [PYTHON, "-c", gone, "run", "--config", "servd.toml"],
        cwd=servd.folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("servd: files of the package circus are missing")
    assert "pip install --force-reinstall --no-deps circus" in done.stderr
    assert "Traceback" not in done.stderr
