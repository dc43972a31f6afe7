"""The same BentoML services under `bentoml serve` and under servd, in one run.

    python benchmarks/bentoml.py [--rounds 6] [--seconds 3] [--python .venv-bentoml/bin/python]

Every round runs both forwards and backwards (A B B A). What is measured: requests per second and
CPU time per request (of the workers; and of all processes where one service calls another), the
time from the start to the first answer, the memory of the supervisor and of the workers (PSS),
the time from the end of a killed worker to the next answer, and the requests that a reload loses
(by the client of `tests/support/strict_client.py`; BentoML's reload is a SIGHUP, which Circus
takes). Needs wrk, and the environment that `.ci/setup bentoml` makes: both run in it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from harness.proc import TICKS, free_port, ticks
from harness.stats import interval

from support.strict_client import StrictClient

ROOT = Path(__file__).parent.parent
SERVICE = """
    import asyncio
    import bentoml
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def ping(request):
        return PlainTextResponse("pong")

    async def slow(request):
        await asyncio.sleep(1)
        return PlainTextResponse("slow")

    beside = Starlette(routes=[Route("/ping", ping), Route("/slow", slow)])

    @bentoml.service(workers=1)
    @bentoml.asgi_app(beside, path="/beside")
    class Echo:
        @bentoml.api
        async def echo(self, text: str) -> str:
            return text

    @bentoml.service(workers=2)
    @bentoml.asgi_app(beside, path="/beside")
    class Pair:
        @bentoml.api
        async def echo(self, text: str) -> str:
            return text

    @bentoml.service(workers=1)
    class Gateway:
        inner = bentoml.depends(Echo)

        @bentoml.api
        async def echo(self, text: str) -> str:
            return await self.inner.echo(text)
"""
POST = """
    wrk.method = "POST"
    wrk.headers["content-type"] = "application/json"
    wrk.body = '{"text": "why does bread rise"}'
"""


@dataclass(frozen=True)
class Contender:
    """How one of both is started: PORT and TARGET are replaced."""

    name: str
    command: tuple[str, ...]
    reload: Callable[[Running], None]


@dataclass
class Running:
    """One that is up."""

    process: psutil.Process
    port: int
    folder: Path

    @property
    def family(self) -> list[psutil.Process]:
        """Its supervisor's children: the workers."""
        found = []
        for child in self.process.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # a zombie is one of those
                if "resource_tracker" not in " ".join(child.cmdline()):
                    found.append(child)
        return found

    def post(self) -> bool:
        """Whether the service answers."""
        with contextlib.suppress(httpx.HTTPError):
            url = f"http://127.0.0.1:{self.port}/echo"
            return httpx.post(url, json={"text": "x"}, timeout=5).status_code == 200
        return False

    def until_answer(self, deadline: float = 60.0) -> float:
        """Seconds until it does."""
        started = time.monotonic()
        while not self.post():
            if time.monotonic() - started > deadline:
                sys.exit("no answer")
            time.sleep(0.01)
        return time.monotonic() - started

    def ticks(self) -> int:
        """CPU time of all processes so far, but for the supervisor's."""
        return sum(ticks(child.pid) for child in self.family)


def contenders(python: str) -> list[Contender]:
    """Both, in one environment."""

    def hang_up(running: Running) -> None:
        before = {child.pid for child in running.family}
        running.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + 60
        while before & {child.pid for child in running.family} and time.monotonic() < end:
            time.sleep(0.05)

    def roll(running: Running) -> None:
        admin = httpx.HTTPTransport(uds=str(running.folder / "run" / "admin.sock"))
        with httpx.Client(transport=admin, base_url="http://servd", timeout=120) as client:
            answer = client.post("/v1/reload", json={"roll": True}).json()
        if answer["outcome"] != "applied":
            sys.exit(f"servd did not reload: {answer}")

    options = ("serve", "TARGET", "--host=127.0.0.1", "--port=PORT")
    return [
        Contender("bentoml serve", (python, "-m", "bentoml", *options), hang_up),
        Contender("servd serve", (python, "-m", "servd", *options), roll),
    ]


@contextlib.contextmanager
def running(contender: Contender, target: str) -> Iterator[tuple[Running, float]]:
    """The contender with one service, and the seconds until it answered."""
    with tempfile.TemporaryDirectory(prefix="sb", dir="/tmp", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "service.py").write_text(textwrap.dedent(SERVICE))
        (folder / "post.lua").write_text(textwrap.dedent(POST))
        port = free_port()
        replaced = {"TARGET": f"service:{target}", "--port=PORT": f"--port={port}"}
        environ = {
            **os.environ,
            "BENTOML_DO_NOT_TRACK": "True",
            "BENTOML_HOME": str(folder / "home"),
            "SERVD_DAEMON__RUNTIME_DIR": str(folder / "run"),
        }
        (folder / "home").mkdir()
        started = time.monotonic()
        process = subprocess.Popen(
            [replaced.get(part, part) for part in contender.command],
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        found = Running(psutil.Process(process.pid), port, folder)
        children: list[psutil.Process] = []
        try:
            found.until_answer()
            yield found, time.monotonic() - started
        finally:
            children = found.family
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(15)
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            process.kill()
            process.wait()


@dataclass
class Sample:
    """One phase of load."""

    per_second: float
    cpu_us: float
    errors: int


def load(found: Running, seconds: float) -> Sample:
    """wrk posts to the service."""
    before = found.ticks()
    output = subprocess.run(
        ["wrk", "-t1", "-c16", f"-d{seconds:g}s", "-s", str(found.folder / "post.lua"),
         f"http://127.0.0.1:{found.port}/echo"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    ticks = found.ticks() - before
    (requests,) = map(int, re.findall(r"(\d+) requests in", output))
    (per_second,) = map(float, re.findall(r"Requests/sec:\s+([\d.]+)", output))
    errors = sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", output)))
    for line in re.findall(r"Socket errors: (.*)", output):
        errors += sum(map(int, re.findall(r"\d+", line)))
    return Sample(per_second, ticks / TICKS / max(1, requests) * 1e6, errors)


def throughput(pair: list[Contender], target: str, options: argparse.Namespace) -> None:
    """Requests per second, both up all the while."""
    samples: dict[str, list[Sample]] = {contender.name: [] for contender in pair}
    with contextlib.ExitStack() as stack:
        up = {c.name: stack.enter_context(running(c, target))[0] for c in pair}
        for found in up.values():
            load(found, 1.0)  # warm
        for _ in range(options.rounds):
            for name in (*up, *reversed(up)):
                samples[name].append(load(up[name], options.seconds))
    base = samples[pair[0].name]
    print(f"\n{target}: POST of JSON, 16 connections\n")
    print("| | req/s | ratio (95 %) | CPU us/request | CPU ratio (95 %) | errors |")
    print("|---|---|---|---|---|---|")
    for name, found_samples in samples.items():
        ratios = [
            interval(
                [
                    getattr(s, key) / getattr(b, key)
                    for s, b in zip(found_samples, base, strict=True)
                ]
            )
            for key in ("per_second", "cpu_us")
        ]
        shown = [f"{middle:.2f} ({low:.2f}-{high:.2f})" for middle, low, high in ratios]
        print(
            f"| {name} | {statistics.median(s.per_second for s in found_samples):.0f} | {shown[0]}"
            f" | {statistics.median(s.cpu_us for s in found_samples):.0f} | {shown[1]}"
            f" | {sum(s.errors for s in found_samples)} |"
        )


def pss(process: psutil.Process) -> float:
    """MiB that are a process's own, and its share of what several have."""
    return float(process.memory_full_info().pss) / 2**20


def starts(pair: list[Contender], rounds: int) -> None:
    """First answer, memory, a killed worker."""
    rows: dict[str, list[tuple[float, float, float, float]]] = {c.name: [] for c in pair}
    for _ in range(rounds):
        for contender in (*pair, *reversed(pair)):
            with running(contender, "Echo") as (found, first):
                supervisor = pss(found.process)
                workers = sum(map(pss, found.family))
                victims = found.family
                for victim in victims:
                    victim.kill()
                killed = time.monotonic()
                psutil.wait_procs(victims, 0.2)
                found.until_answer()
                again = time.monotonic() - killed
            rows[contender.name].append((first, supervisor, workers, again))
    print("\nEcho, one worker\n")
    print("| | first answer s | supervisor MiB | worker MiB | killed to next answer s |")
    print("|---|---|---|---|---|")
    for name, found_rows in rows.items():
        first, supervisor, workers, again = (
            statistics.median(c) for c in zip(*found_rows, strict=True)
        )
        print(f"| {name} | {first:.2f} | {supervisor:.1f} | {workers:.1f} | {again:.2f} |")


def reloads(pair: list[Contender], times: int) -> None:
    """Requests that reloads lose."""
    print(f"\nPair, two workers, {times} reloads under 200 requests a second\n")
    print("| | answered | lost | slowest s |")
    print("|---|---|---|---|")
    for contender in pair:
        with running(contender, "Pair") as (found, _):
            client = StrictClient(
                "127.0.0.1", found.port, path="/beside/ping", slow_path="/beside/slow"
            )

            async def work(contender: Contender = contender, found: Running = found) -> None:
                for _ in range(times):
                    await asyncio.to_thread(contender.reload, found)
                    await asyncio.sleep(1)

            tally = asyncio.run(client.during(work))
        print(f"| {contender.name} | {tally.answered} | {len(tally.lost)} | {tally.slowest:.2f} |")
        if tally.lost:
            print(json.dumps(tally.lost[:5]), file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--reloads", type=int, default=5)
    parser.add_argument("--python", default=str(ROOT / ".venv-bentoml" / "bin" / "python"))
    options = parser.parse_args()
    pair = contenders(options.python)
    throughput(pair, "Echo", options)
    throughput(pair, "Gateway", options)
    starts(pair, max(1, options.rounds // 2))
    reloads(pair, options.reloads)


if __name__ == "__main__":
    main()
