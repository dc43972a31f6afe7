"""The forecast of `servd plan --capacity` beside what is measured, under Poisson arrivals.

    python benchmarks/capacity.py [--seconds 120] [--only places] [--gate 0.15]

Each setting is measured at 30 % of its capacity, as a user would; then `servd plan --capacity` says
what to expect at 50, 70 and 85 %, and the load is sent. Arrivals do not wait for answers (an open
loop), each on a connection of its own, and times count from when a request was due.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.machine import load as machine_load
from harness.proc import free_port

ANSWER = """
async def answer(send):
    head = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": b"ok"})
"""
WAITS = """
import asyncio, random
from answer import answer

async def app(scope, receive, send):
    if scope["type"] == "http":
        await asyncio.sleep(%s)
        await answer(send)
"""
CALLS = """
import asyncio, random
import servd
from answer import answer

model = servd.depends("model")

async def app(scope, receive, send):
    if scope["type"] == "http":
        await asyncio.sleep(random.gammavariate(4, 0.01 / 4))
        await model.get("/")
        await answer(send)
"""
COMPUTES = """
import random, time
from answer import answer

async def app(scope, receive, send):
    if scope["type"] == "http":
        end = time.thread_time() + random.gammavariate(4, 0.005 / 4)
        while time.thread_time() < end:
            pass
        await answer(send)
"""
MODEL = """
[services.model]
app = "model:app"
limits = { concurrency = 4, queue = 1000 }
"""


@dataclass(frozen=True)
class Setting:
    """An app of known behaviour: its services, and the requests per second that saturate it."""

    name: str
    text: str
    capacity: float
    web: str
    lines: str
    model: str = ""


SETTINGS = (
    Setting(
        "places",
        "two workers with two places each, which wait for 40 ms, exponentially distributed",
        100.0,
        WAITS % "random.expovariate(1 / 0.04)",
        "workers = 2\nlimits = { concurrency = 2, queue = 1000 }",
    ),
    Setting(
        "fixed",
        "one worker with four places, which wait for 40 ms, always the same",
        100.0,
        WAITS % "0.04",
        "limits = { concurrency = 4, queue = 1000 }",
    ),
    Setting(
        "graph",
        "a service that waits for 10 ms and calls another, which has four places and waits for"
        " 30 ms (gamma distributions of shape 4)",
        133.0,
        CALLS,
        'depends_on = ["model"]',
        WAITS % "random.gammavariate(4, 0.03 / 4)",
    ),
    Setting(
        "cpu",
        "one worker without a limit, which computes for 5 ms (gamma of shape 4)",
        190.0,
        COMPUTES,
        "workers = 1",
    ),
)
LOADS = (0.5, 0.7, 0.85)
CALIBRATION = 0.3


@dataclass(frozen=True)
class Row:
    """One load: what was forecast, and what was measured."""

    share: float
    arrivals: float
    forecast: dict[str, float]
    throughput: float
    p95_ms: float
    requests: int

    def errors(self) -> tuple[float, float]:
        """How far the forecasts of throughput and p95 are off, as shares of what was measured."""
        return (
            self.forecast["throughput"] / self.throughput - 1,
            self.forecast["p95_ms"] / self.p95_ms - 1,
        )


@contextlib.contextmanager
def running(setting: Setting) -> Iterator[tuple[Path, int]]:
    """The daemon of a setting: its configuration and port."""
    with tempfile.TemporaryDirectory(prefix="sc", dir="/tmp") as name:
        folder, port = Path(name), free_port()
        (folder / "answer.py").write_text(ANSWER)
        (folder / "web.py").write_text(setting.web)
        (folder / "model.py").write_text(setting.model)
        config = folder / "servd.toml"
        config.write_text(
            f'[daemon]\nruntime_dir = "{folder}/run"\nwatch = false\n'
            "[defaults]\nlog = { access = false }\n"
            f'[services.web]\napp = "web:app"\nlisten = "127.0.0.1:{port}"\n{setting.lines}\n'
            + (MODEL if setting.model else "")
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "servd", "--config", str(config)],
            cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            end = time.monotonic() + 60
            while not asyncio.run(is_up(port)):
                if process.poll() is not None or time.monotonic() > end:
                    sys.exit(f"{setting.name} did not start")
                time.sleep(0.1)
            yield config, port
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


async def is_up(port: int) -> bool:
    try:
        await ask(port)
    except OSError:
        return False
    return True


async def ask(port: int) -> None:
    """One request on a connection of its own. Raises OSError unless the answer is 200."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise OSError(f"answered {answer[:20]!r}")
    finally:
        writer.close()


async def poisson(port: int, rate: float, seconds: float, seed: int) -> tuple[float, float, int]:
    """Sends requests at random times; returns throughput, p95 in ms and their number."""
    rng = random.Random(seed)
    took: list[float] = []

    async def one(due: float) -> None:
        await ask(port)
        took.append(time.perf_counter() - due)

    tasks: set[asyncio.Task[None]] = set()
    began = due = time.perf_counter()
    while (due := due + rng.expovariate(rate)) < began + seconds:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.add(asyncio.create_task(one(due)))
    await asyncio.gather(*tasks)
    took.sort()
    # what arrived is what the forecast is for: the number is random, with a deviation of its root
    return len(took) / seconds, 1000 * took[int(0.95 * len(took))], len(took)


def forecast(config: Path, rate: float) -> dict[str, float]:
    """What `servd plan --capacity` expects of the public service."""
    command = [sys.executable, "-m", "servd", "plan", "--config", str(config), "--json"]
    done = subprocess.run(
        [*command, "--capacity", f"web={rate}"], stdout=subprocess.PIPE, text=True, check=True,
        env={**os.environ},
    )  # fmt: skip
    answer: dict[str, Any] = json.loads(done.stdout)
    found: dict[str, float] = next(s for s in answer["services"] if s["name"] == "web")["now"]
    return found


def measure(setting: Setting, seconds: float) -> list[Row]:
    """All loads of a setting."""
    rows: list[Row] = []
    with running(setting) as (config, port):
        asyncio.run(poisson(port, CALIBRATION * setting.capacity, max(20.0, seconds / 4), 1))
        said = {share: forecast(config, share * setting.capacity) for share in LOADS}
        for number, (share, expected) in enumerate(said.items()):
            print(f"{setting.name} at {share:.0%}, {machine_load()}", file=sys.stderr)
            rate = share * setting.capacity
            found = asyncio.run(poisson(port, rate, seconds, 2 + number))
            rows.append(Row(share, rate, expected, *found))
    return rows


def report(setting: Setting, rows: list[Row]) -> None:
    print(f"\n### {setting.name}: {setting.text}\n")
    print(
        "| load | arrivals/s | answered/s: forecast | measured | off | p95 ms: forecast | measured"
        " | off | requests |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        throughput, p95 = row.errors()
        print(
            f"| {row.share:.0%} | {row.arrivals:.1f} | {row.forecast['throughput']:.1f}"
            f" | {row.throughput:.1f} | {throughput:+.1%} | {row.forecast['p95_ms']:.1f}"
            f" | {row.p95_ms:.1f} | {p95:+.1%} | {row.requests} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--only", choices=[setting.name for setting in SETTINGS], action="append")
    parser.add_argument("--gate", type=float, help="fail when a forecast is off by more than this")
    options = parser.parse_args()
    worst = 0.0
    for setting in SETTINGS:
        if options.only and setting.name not in options.only:
            continue
        rows = measure(setting, options.seconds)
        report(setting, rows)
        worst = max([worst, *(abs(error) for row in rows for error in row.errors())])
    print(f"\nfarthest off: {worst:.1%}")
    if options.gate and worst > options.gate:
        sys.exit(f"above {options.gate:.0%}")


if __name__ == "__main__":
    main()
