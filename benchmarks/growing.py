"""What each step from one process to several hosts costs.

    python benchmarks/growing.py [--requests 2000] [--json FILE]

The same app with a dependency, one worker each: in one servd, as services of two servds (as on two
hosts, or in two pods), and the same with HAProxy before the app and before its dependency. All run
all the while on the loopback interface and are asked in turn, one request at a time on a kept
connection: p50, the CPU time of all processes per request, and their memory.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from harness.proc import cpu_seconds, free_port, pss_mib, tree

WEB = """
from fastapi import FastAPI

import servd

app = FastAPI()

@app.get("/")
async def index():
    return (await servd.depends("model").get("/score")).json()
"""
MODEL = """
from fastapi import FastAPI

app = FastAPI()

@app.get("/score")
async def score():
    return {"score": 7}
"""
QUIET = "[defaults]\nlog.access = false\n"
WHOLE = """
[services.web]
app = "web:app"
listen = "127.0.0.1:{web}"
depends_on = "model"
[services.model]
app = "model:app"
"""
FRONT = """
[services.web]
app = "web:app"
listen = "127.0.0.1:{web}"
depends_on = "model"
[services.model]
external = "http://127.0.0.1:{model}"
"""
BACK = """
[services.model]
app = "model:app"
listen = "127.0.0.1:{model}"
"""
BALANCER = """
defaults
    mode http
    timeout connect 1s
    timeout client 60s
    timeout server 10s
    http-reuse always
frontend web
    bind 127.0.0.1:{web}
    default_backend web
backend web
    server one 127.0.0.1:{web_here}
frontend model
    bind 127.0.0.1:{model}
    default_backend model
backend model
    server one 127.0.0.1:{model_here}
"""
BATCH = 100


@dataclass(slots=True)
class Step:
    """One step: its processes, and where it is asked."""

    name: str
    port: int
    pids: list[int] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)
    cpu: float = 0.0

    @property
    def processes(self) -> list[int]:
        return [each for pid in self.pids for each in tree(pid)]

    def ask(self, client: httpx.Client) -> None:
        """A batch of requests."""
        before = cpu_seconds(self.processes)
        for _ in range(BATCH):
            began = time.perf_counter()
            client.get(f"http://127.0.0.1:{self.port}/").raise_for_status()
            self.milliseconds.append(1000 * (time.perf_counter() - began))
        self.cpu += cpu_seconds(self.processes) - before


class Runner:
    """Starts programs in a folder, and ends them."""

    def __init__(self, folder: Path, undo: contextlib.ExitStack) -> None:
        self.folder, self.undo, self.count = folder, undo, 0
        (folder / "web.py").write_text(WEB)
        (folder / "model.py").write_text(MODEL)

    def servd(self, text: str) -> int:
        """Starts a servd; returns its pid."""
        self.count += 1
        config = self.folder / f"servd{self.count}.toml"
        config.write_text(QUIET + text)
        runtime = str(self.folder / f"run{self.count}")
        argv = [sys.executable, "-m", "servd", "--config", str(config)]
        return self._start(argv, SERVD_DAEMON__RUNTIME_DIR=runtime)

    def haproxy(self, text: str) -> int:
        """Starts HAProxy; returns its pid."""
        config = self.folder / "haproxy.cfg"
        config.write_text(text)
        program = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None:
            raise SystemExit("needs haproxy")
        return self._start([program, "-f", str(config)])

    def _start(self, argv: list[str], **environ: str) -> int:
        process = subprocess.Popen(
            argv, env={**os.environ, **environ},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.undo.callback(process.wait)
        self.undo.callback(process.terminate)
        return process.pid


def steps(runner: Runner) -> Iterator[Step]:
    """The steps, all of them started."""
    port = free_port()
    yield Step("one servd", port, [runner.servd(WHOLE.format(web=port))])
    web, model = free_port(), free_port()
    pids = [
        runner.servd(BACK.format(model=model)),
        runner.servd(FRONT.format(web=web, model=model)),
    ]
    yield Step("two servds", web, pids)
    web_here, model_here, web, model = (free_port() for _ in range(4))
    ports = {"web": web, "model": model, "web_here": web_here, "model_here": model_here}
    pids = [
        runner.haproxy(BALANCER.format(**ports)),
        runner.servd(BACK.format(model=model_here)),
        runner.servd(FRONT.format(web=web_here, model=model)),
    ]
    yield Step("two servds behind HAProxy", web, pids)


def wait_until_ready(step: Step, client: httpx.Client) -> None:
    """Returns once it answers."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with contextlib.suppress(httpx.TransportError):
            if client.get(f"http://127.0.0.1:{step.port}/").status_code == 200:
                return
        time.sleep(0.1)
    raise SystemExit(f"{step.name} did not start")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as undo:
        found = list(steps(Runner(Path(folder), undo)))
        with httpx.Client(timeout=30) as client:
            for step in found:
                wait_until_ready(step, client)
            time.sleep(7)  # templates end
            for number in range(options.requests // BATCH):
                for step in found if number % 2 else reversed(found):
                    step.ask(client)
        memory = {step.name: pss_mib(step.processes) for step in found}
    print("| | p50 ms | CPU us per request | memory MiB |\n|---|---|---|---|")
    for step in found:
        p50 = statistics.median(step.milliseconds)
        cpu = 1e6 * step.cpu / len(step.milliseconds)
        print(f"| {step.name} | {p50:.2f} | {cpu:.0f} | {memory[step.name]:.0f} |")
    if options.json is not None:
        options.json.write_text(json.dumps({s.name: s.milliseconds for s in found}))


if __name__ == "__main__":
    main()
