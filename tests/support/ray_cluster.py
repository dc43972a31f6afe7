"""A cluster of Ray for tests: two nodes of one CPU each on this machine, and servd's commands for
it. All waits are long: Ray takes minutes where CPUs are few.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from support.harness import free_port, wait_until

PYTHON = str(Path(__file__).parents[2] / ".venv-ray" / "bin" / "python")
"""Made by `.ci/setup ray`: servd, Ray and BentoML."""

MINUTES = 300.0
"""How long anything may take."""

ANSWER_SECONDS = 60.0
"""How long a client waits for an answer."""

_NODES = """
import json, sys
import ray
from ray.cluster_utils import Cluster

port, nodes = map(int, sys.argv[1:])
small = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
head = {**small, "include_dashboard": True, "dashboard_port": port}
cluster = Cluster(initialize_head=True, head_node_args=head)
for _ in range(nodes - 1):
    cluster.add_node(**small)
print("up", flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@dataclass
class RayCluster:
    """A cluster whose services answer at `url`."""

    dashboard: str
    port: int
    log: Path
    environ: dict[str, str] = field(repr=False)
    pid: int = 0

    def pids(self) -> list[int]:
        """All its processes."""
        top = psutil.Process(self.pid)
        return [each.pid for each in top.children(recursive=True)]

    @property
    def url(self) -> str:
        """Where the first public service answers."""
        return f"http://127.0.0.1:{self.port}"

    def command(self, folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
        """Runs a command of servd, in an environment that has BentoML too."""
        return subprocess.run(
            [PYTHON, "-m", "servd", *argv, "--engine", "ray", "--address", self.dashboard],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=MINUTES * 2,
            env={**self.environ, "PORT": str(self.port)},
        )

    def deploy(self, folder: Path, text: str | None = None) -> str:
        """Deploys a configuration, and returns what was shown."""
        done = self.try_to_deploy(folder, text)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def try_to_deploy(
        self, folder: Path, text: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Deploys a configuration, which may fail."""
        if text is not None:
            (folder / "servd.toml").write_text(text.replace("{port}", str(self.port)))
        return self.command(folder, "deploy", "--cpus", "0.1", "--wait", f"{MINUTES:g}s")

    def get(self, path: str, **given: Any) -> httpx.Response:
        """The answer to a GET request."""
        return httpx.get(self.url + path, timeout=ANSWER_SECONDS, **given)

    def details(self) -> dict[str, Any]:
        """What Ray Serve runs."""
        found: dict[str, Any] = httpx.get(
            f"{self.dashboard}/api/serve/applications/", timeout=ANSWER_SECONDS
        ).json()
        return found

    def replicas(self, service: str) -> list[dict[str, Any]]:
        """The replicas of a service that run."""
        (deployment,) = self.details()["applications"][service]["deployments"].values()
        return [each for each in deployment["replicas"] if each["state"] == "RUNNING"]

    def asking(self, path: str, rate: float) -> contextlib.AbstractContextManager[Tally]:
        """Clients that ask `rate` times a second, each on a connection of its own."""
        return _asking(self.url + path, rate)


@dataclass
class Tally:
    """What clients met: how many answers of each status, and what went wrong."""

    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    bodies: Counter[str] = field(default_factory=Counter)

    @property
    def answered(self) -> int:
        """The number of all answers."""
        return self.statuses.total()

    @property
    def lost(self) -> list[str]:
        """Everything but 200."""
        bad = [f"{status} x {n}" for status, n in self.statuses.items() if status != 200]
        return bad + self.wrong

    def more(self, count: int) -> None:
        """Waits for so many further answers."""
        goal = self.answered + count
        wait_until(lambda: self.answered + len(self.wrong) >= goal, "more answers", MINUTES)


@contextlib.contextmanager
def _asking(url: str, rate: float) -> Iterator[Tally]:
    import threading

    tally, over = Tally(), threading.Event()

    async def ask(client: httpx.AsyncClient) -> None:
        try:
            answer = await client.get(url)
        except httpx.HTTPError as error:
            tally.wrong.append(f"{type(error).__name__}: {error}")
        else:
            tally.statuses[answer.status_code] += 1
            tally.bodies[answer.text] += 1

    async def all_of_it() -> None:
        limits = httpx.Limits(max_keepalive_connections=0)
        async with (
            httpx.AsyncClient(timeout=ANSWER_SECONDS, limits=limits) as client,
            asyncio.TaskGroup() as group,
        ):
            while not over.is_set():
                group.create_task(ask(client))
                await asyncio.sleep(1 / rate)

    thread = threading.Thread(target=lambda: asyncio.run(all_of_it()))
    thread.start()
    try:
        yield tally
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def burning() -> Iterator[None]:
    """A process that takes all of a CPU that it can get."""
    burner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        burner.kill()
        burner.wait()


@contextlib.contextmanager
def ray_cluster(nodes: int = 2) -> Iterator[RayCluster]:
    """A cluster with a dashboard, without authentication."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    around = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "SERVD_"))}
    environ = {
        **around, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": str(folder), "BENTOML_DO_NOT_TRACK": "True",
        "RAY_DISABLE_DOCKER_CPU_WARNING": "1", "FROM_THE_NODE": "seen",
    }  # fmt: skip
    log = folder / "cluster.log"
    port = free_port()
    with open(log, "wb") as file:
        process = subprocess.Popen(
            [PYTHON, "-c", _NODES, str(port), str(nodes)],
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=file,
            env=environ,
            cwd=folder,
            start_new_session=True,
        )
    cluster = RayCluster(f"http://127.0.0.1:{port}", free_port(), log, environ, process.pid)
    family: list[psutil.Process] = []
    try:
        wait_until(lambda: process.poll() is not None or _is_up(cluster), "Ray is up", MINUTES)
        assert process.poll() is None, log.read_text()
        family = psutil.Process(process.pid).children(recursive=True)
        yield cluster
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            family += psutil.Process(process.pid).children(recursive=True)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=60)
        for each in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.send_signal(signal.SIGKILL)
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _is_up(cluster: RayCluster) -> bool:
    if "up\n" not in cluster.log.read_text():
        return False
    try:
        return httpx.get(f"{cluster.dashboard}/api/version", timeout=10).status_code == 200
    except httpx.HTTPError:
        return False


def eventually(condition: Callable[[], Any], what: str) -> Any:
    """Waits for a condition, for minutes."""
    end = time.monotonic() + MINUTES
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {MINUTES:g} s: {what}"
        time.sleep(0.5)
    return found
