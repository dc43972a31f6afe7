"""Requests per second and CPU per request: servd beside bare uvicorn, on the same app.

    python benchmarks/throughput.py [--rounds 10] [--seconds 3] [--workers 1] [--gate 1.05]

Both run the same FastAPI app with the same number of workers; wrk (Debian's package) asks. Every
round runs the contenders forwards and backwards (A B .. B A), so that a machine that slows down
slows all of them down. The figure to trust is the CPU time of the workers per request: shared
machines vary twofold in wall-clock time. Workers are pinned to one CPU and wrk to the others, where
there is more than one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness import wrk
from harness.proc import TICKS, free_port, is_tracker, ticks
from harness.servers import servd_toml
from harness.stats import interval

APP = """
from fastapi import FastAPI

app = FastAPI()


@app.get("/ping")
async def ping() -> dict[str, str]:
    return {"ping": "pong"}
"""
CPUS = sorted(os.sched_getaffinity(0))
BASELINE = "uvicorn"


@dataclass(frozen=True)
class Sample(wrk.Load):
    """One phase of load on one contender, and the CPU time of its workers for each request."""

    cpu_us: float


@dataclass(frozen=True)
class Contender:
    name: str
    process: subprocess.Popen[bytes]
    port: int

    def workers(self) -> list[int]:
        """The processes that answer: the children, or a server that has none."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        serving = [pid for pid in map(int, children.read_text().split()) if not is_tracker(pid)]
        return serving or [self.process.pid]

    def cpu_ticks(self) -> int:
        return sum(ticks(pid) for pid in self.workers())


def commands(workers: int, folder: Path) -> dict[str, list[str]]:
    """How each contender is started; PORT stands for its port."""
    uvicorn = [sys.executable, "-m", "uvicorn", "main:app", "--port", "PORT"]
    uvicorn += ["--workers", str(workers), "--log-level", "warning"]
    found = {BASELINE: [*uvicorn, "--no-access-log"]}
    for name, access in (("servd", "false"), ("servd, access log", "true")):
        lines = [f"workers = {workers}", f"log = {{ access = {access} }}"]
        found[name] = servd_command(folder, access, lines)
    access_log = [sys.executable, "-m", "uvicorn", *uvicorn[3:-2]]
    found["uvicorn, access log"] = access_log
    return found


def servd_command(folder: Path, name: str, lines: list[str], app: str = "main:app") -> list[str]:
    """How servd is started with one service, `lines` of which are its own."""
    config = folder / f"{name}.toml"
    config.write_text(servd_toml(folder / name, "127.0.0.1:${BENCH_PORT}", lines, app))
    return [sys.executable, "-m", "servd", "--config", str(config)]


Commands = Callable[[Path], dict[str, list[str]]]


@contextlib.contextmanager
def running(commands: Commands) -> Iterator[list[Contender]]:
    """All contenders, up and pinned; ended however the benchmark goes."""
    started: list[Contender] = []
    with tempfile.TemporaryDirectory(prefix="sb", dir="/tmp") as name:
        folder = Path(name)
        (folder / "main.py").write_text(APP)
        try:
            for label, command in commands(folder).items():
                port = free_port()
                process = subprocess.Popen(
                    [part.replace("PORT", str(port)) for part in command],
                    cwd=folder,
                    env={**os.environ, "BENCH_PORT": str(port)},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
                started.append(Contender(label, process, port))
            for contender in started:
                _wait(contender)
                for pid in contender.workers():
                    os.sched_setaffinity(pid, CPUS[:1])
            yield started
        finally:
            for contender in started:
                contender.process.send_signal(signal.SIGTERM)
            for contender in started:
                contender.process.wait(30)


def _wait(contender: Contender) -> None:
    """Until it answers."""
    end = time.monotonic() + 30
    while True:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", contender.port), 1) as client,
        ):
            client.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            if client.recv(12) == b"HTTP/1.1 200":
                return
        if contender.process.poll() is not None or time.monotonic() > end:
            sys.exit(f"{contender.name} did not start")
        time.sleep(0.05)


def measure(contender: Contender, seconds: float, connections: int) -> Sample:
    """One phase of load."""
    before = contender.cpu_ticks()
    url = f"http://127.0.0.1:{contender.port}/ping"
    found = wrk.load(url, seconds, connections, CPUS[1:] or CPUS)
    spent = contender.cpu_ticks() - before
    return Sample(**vars(found), cpu_us=spent / TICKS / found.requests * 1e6)


def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--gate", type=float, help="fail when servd's CPU ratio is above this")
    options = parser.parse_args()
    samples = measured(partial(commands, options.workers), options)
    report(samples)
    if options.gate:
        ratio = interval(ratios(samples, "servd", "cpu_us"))[0]
        if ratio > options.gate:
            sys.exit(f"CPU per request is {ratio:.3f} of uvicorn's, above {options.gate}")


def parser_for(text: str | None) -> argparse.ArgumentParser:
    """The options of every benchmark that `measured` runs; `text` describes it."""
    parser = argparse.ArgumentParser(description=text.splitlines()[0] if text else "")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--json", type=Path, help="write the samples there")
    return parser


def measured(commands: Commands, options: argparse.Namespace) -> dict[str, list[Sample]]:
    """The samples of all contenders, written down where that was asked for."""
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing: apt-get install wrk")
    with running(commands) as contenders:
        samples = rounds(contenders, options)
    if options.json:
        options.json.write_text(
            json.dumps({name: [vars(s) for s in found] for name, found in samples.items()})
        )
    return samples


def rounds(contenders: list[Contender], options: argparse.Namespace) -> dict[str, list[Sample]]:
    """All phases of all contenders, forwards and backwards in each round."""
    samples: dict[str, list[Sample]] = {}
    for contender in contenders:
        measure(contender, 1.0, options.connections)  # warm
    for number in range(options.rounds):
        for contender in [*contenders, *reversed(contenders)]:
            sample = measure(contender, options.seconds, options.connections)
            samples.setdefault(contender.name, []).append(sample)
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    return samples


def ratios(samples: dict[str, list[Sample]], name: str, figure: str) -> list[float]:
    """Each phase beside the baseline's of the same half round."""
    base = samples[BASELINE]
    return [
        getattr(sample, figure) / getattr(other, figure)
        for sample, other in zip(samples[name], base, strict=True)
    ]


def report(samples: dict[str, list[Sample]]) -> None:
    columns = "contender|CPU us/request|CPU ratio (95 %)|req/s|req/s ratio|p50 ms|p99 ms|errors"
    print("| " + columns.replace("|", " | ") + " |")
    print("|---|---|---|---|---|---|---|---|")
    for name, found in samples.items():

        def median(figure: str, found: list[Sample] = found) -> float:
            return float(statistics.median(getattr(sample, figure) for sample in found))

        ratio, low, high = interval(ratios(samples, name, "cpu_us"))
        speed = statistics.median(ratios(samples, name, "per_second"))
        print(
            f"| {name} | {median('cpu_us'):.1f} | {ratio:.3f} ({low:.3f}-{high:.3f}) "
            f"| {median('per_second'):.0f} | {speed:.2f} | {median('p50_ms'):.1f} "
            f"| {median('p99_ms'):.1f} | {sum(s.errors for s in found)} |"
        )


if __name__ == "__main__":
    main()
