"""How evenly new connections are spread over the workers of a service.

    python benchmarks/bursts.py [--rounds 20] [--concurrency 1] [--gate 1.15]
    python benchmarks/bursts.py --places [--times 5] [--gate 0]

Bursts of connections, at once or 5 ms apart, each of which asks once and stays open; then all end.
Shown is the worker with the most connections against the mean: the median of the rounds and the
worst. Uvicorn with as many workers runs in turn. `--gate` makes it fail when the median of servd is
above it in any of the patterns. `--concurrency` gives each worker so many places.

`--places`: two or three workers of one to four places each, one of which has an idle connection,
and as many requests as there are places, on new connections: answers of 0.1 to 2 s, at once or as a
stream. Shown is how many waited behind another or were refused, though a worker had a free place;
`--gate` is the most. `--times` repeats it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from harness.proc import free_port

APP = """
import asyncio
import os

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": message["type"] + ".complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    kind, _, seconds = scope["path"][1:].partition("/")
    said = b"%8d" % os.getpid()
    headers = [(b"content-length", b"8")]
    if kind == "stream":
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for part in range(8):
            await send({"type": "http.response.body", "body": said[part:part + 1],
                        "more_body": part < 7})
            await asyncio.sleep(float(seconds) / 8)
        return
    if kind == "slow":
        await asyncio.sleep(float(seconds))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": said})
"""
CONFIG = """
[services.web]
app = "main:app"
listen = "127.0.0.1:{port}"
workers = {workers}
{limits}
"""
PATTERNS = ((2, 32, 0.0), (4, 32, 0.0), (4, 64, 0.0), (4, 32, 0.005), (2, 32, 0.005))
"""Workers, connections, and seconds between two of them."""


class Places(NamedTuple):
    """Workers with `concurrency` places each, `limits.queue`, rounds, seconds between two requests
    of a round, what is asked, and the seconds that an answer takes.
    """

    workers: int
    concurrency: int
    queue: int
    rounds: int
    apart: float
    kind: str = "slow"
    seconds: float = 0.5


PLACES = (
    Places(2, 1, 10, 24, 0.03),
    Places(2, 1, 0, 24, 0.03),
    Places(3, 1, 10, 16, 0.0),
    Places(3, 1, 0, 16, 0.0),
    Places(2, 2, 10, 12, 0.0),
    Places(2, 4, 0, 12, 0.01),
    Places(3, 4, 0, 8, 0.0),
    Places(2, 1, 0, 24, 0.005, seconds=0.1),
    Places(2, 1, 0, 6, 0.03, "stream", 2.0),
    Places(2, 4, 10, 6, 0.0, "stream", 2.0),
)

_LATE = 0.6
"""An answer that took longer by this share of its time had to wait."""


async def ask(port: int, wait: float, ended: asyncio.Barrier) -> str:
    """The process that answers on a connection, which stays open until all have been answered."""
    await asyncio.sleep(wait)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    pid = (await reader.readexactly(8)).decode()
    await ended.wait()
    writer.close()
    return pid


async def burst(port: int, workers: int, connections: int, apart: float) -> float:
    """Busiest over mean of one burst."""
    ended = asyncio.Barrier(connections)
    pids = await asyncio.gather(*(ask(port, i * apart, ended) for i in range(connections)))
    await asyncio.sleep(0.05)  # the server sees that they have ended
    return max(Counter(pids).values()) / (connections / workers)


async def take_place(port: int, wait: float, each: Places) -> tuple[bool, bool]:
    """Whether a request waited, and whether it was refused."""
    await asyncio.sleep(wait)
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    path = f"/{each.kind}/{each.seconds}"
    writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    waited = time.perf_counter() - began > each.seconds * (1 + _LATE)
    return waited, b" 503 " in answer.partition(b"\r\n")[0]


async def fill(port: int, each: Places) -> tuple[int, int]:
    """How many of as many requests as there are places waited, and how many were refused."""
    reader, idle = await asyncio.open_connection("127.0.0.1", port)
    idle.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(8)
    requests = range(each.workers * each.concurrency)
    found = await asyncio.gather(*(take_place(port, i * each.apart, each) for i in requests))
    idle.close()
    return sum(waited for waited, _ in found), sum(refused for _, refused in found)


def measure_places(gate: float | None) -> None:
    """Prints how many waited or were refused beside an idle worker."""
    most = 0
    print("workers  places  queue  apart    answer        waited and refused")
    for each in PLACES:
        limits = f"limits = {{ concurrency = {each.concurrency}, queue = {each.queue} }}"
        with (
            tempfile.TemporaryDirectory(prefix="sb", dir="/tmp") as name,
            served("servd", each.workers, Path(name), limits) as port,
        ):
            found = [asyncio.run(fill(port, each)) for _ in range(each.rounds)]
        waited, refused = (sum(column) for column in zip(*found, strict=True))
        most = max(most, waited + refused)
        gap = "at once" if not each.apart else f"{each.apart * 1000:g} ms"
        answer = f"{each.kind} {each.seconds:g} s"
        requests = each.rounds * each.workers * each.concurrency
        shown = f"{each.workers:7}  {each.concurrency:6}  {each.queue:5}  {gap:7}  {answer:12}"
        print(f"{shown}  {waited} and {refused} of {requests}", flush=True)
    if gate is not None and most > gate:
        sys.exit(f"{most} waited or were refused beside an idle worker: more than {gate:g}")


@contextlib.contextmanager
def served(kind: str, workers: int, folder: Path, limits: str = "") -> Iterator[int]:
    """The port of a server with so many workers."""
    port = free_port()
    (folder / "main.py").write_text(APP)
    (folder / "servd.toml").write_text(CONFIG.format(port=port, workers=workers, limits=limits))
    command = ["-m", "servd", "--config", "servd.toml"]
    if kind == "uvicorn":
        command = ["-m", "uvicorn", "main:app", f"--port={port}", f"--workers={workers}"]
    environ = {**os.environ, "SERVD_DAEMON__RUNTIME_DIR": str(folder / "run")}
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        pids: set[bytes] = set()
        while len(pids) < workers:  # all of them are there
            with contextlib.suppress(OSError):
                url = f"http://127.0.0.1:{port}/"
                pids.add(urllib.request.urlopen(url, timeout=5).read())
        yield port
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--concurrency", type=int, default=0)
    parser.add_argument("--places", action="store_true")
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--gate", type=float)
    options = parser.parse_args()
    if options.places:
        for _ in range(options.times):
            measure_places(options.gate)
        return
    limits = ""
    if options.concurrency:
        limits = f"limits = {{ concurrency = {options.concurrency}, queue = 100 }}"
    worst = 0.0
    print("workers  connections  apart    servd          uvicorn")
    for workers, connections, apart in PATTERNS:
        shown: dict[str, str] = {}
        for kind in ("servd", "uvicorn"):
            with (
                tempfile.TemporaryDirectory(prefix="sb", dir="/tmp") as name,
                served(kind, workers, Path(name), limits) as port,
            ):
                found = [
                    asyncio.run(burst(port, workers, connections, apart))
                    for _ in range(options.rounds)
                ]
            shown[kind] = f"{statistics.median(found):.2f} ({max(found):.2f})"
            if kind == "servd":
                worst = max(worst, statistics.median(found))
        gap = "at once" if not apart else f"{apart * 1000:g} ms"
        print(f"{workers:7}  {connections:11}  {gap:7}  {shown['servd']:13}  {shown['uvicorn']}")
    if options.gate and worst > options.gate:
        sys.exit(f"the busiest worker has {worst:.2f} of the mean: more than {options.gate}")


if __name__ == "__main__":
    main()
