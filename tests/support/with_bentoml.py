"""BentoML for tests: its environment, its own server, and its own client."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil

from support.harness import DEADLINE, free_port, wait_until

HERE = Path(__file__).parent / "bento"
SERVICES = HERE / "services"
PYTHON = str(Path(__file__).parents[2] / ".venv-bentoml" / "bin" / "python")
"""Made by `.ci/setup bentoml`: servd and BentoML, with kantoku's files where circus's were."""

GATEWAY = f"""
    [services.gw]
    bento = "service:Gateway"
    listen = "127.0.0.1:0"
    python = "{PYTHON}"
"""
"""The service `graph`, copied to where the configuration is."""


def packages() -> str:
    """The folder of what is installed there."""
    (found,) = Path(PYTHON).parents[1].glob("lib/python3.*/site-packages")
    return str(found)


def environ(home: Path) -> dict[str, str]:
    """Where BentoML keeps what it has; nobody is told of it."""
    return {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"}


def copied(name: str, folder: Path) -> None:
    """One of the services, as `service.py` in a folder."""
    shutil.copy(SERVICES / f"{name}.py", folder / "service.py")


@contextlib.contextmanager
def bentoml_serve(
    target: str, folder: Path, *options: str, scheme: str = "http", **variables: str
) -> Iterator[str]:
    """`bentoml serve` with these variables, once it is ready; gives its URL."""
    port = free_port()
    home = folder / "home-of-bentoml"
    home.mkdir(exist_ok=True)
    with open(folder / "bentoml.log", "wb") as log:
        argv = [PYTHON, "-m", "bentoml", "serve", target, *options]
        server = subprocess.Popen(
            [*argv, "--host=127.0.0.1", f"--port={port}"],
            cwd=folder,
            env={**os.environ, **environ(home), **variables},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    url = f"{scheme}://127.0.0.1:{port}"
    try:
        wait_until(lambda: answers(url), "bentoml serve is ready")
        yield url
    finally:
        family = psutil.Process(server.pid).children(recursive=True)
        server.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(DEADLINE)
        for process in [*family, psutil.Process(server.pid)] if server.poll() is None else family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        server.wait()


def answers(url: str) -> bool:
    """Whether the service there is ready."""
    try:
        return httpx.get(f"{url}/readyz", timeout=DEADLINE, verify=False).status_code == 200
    except httpx.HTTPError:
        return False


def asked(shape: str, url: str) -> dict[str, Any]:
    """What BentoML's own client gets of it."""
    done = subprocess.run(
        [PYTHON, HERE / "ask.py", shape, url],
        capture_output=True,
        text=True,
        timeout=DEADLINE * 2,
        env={**os.environ, "BENTOML_DO_NOT_TRACK": "True"},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found
