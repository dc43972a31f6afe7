"""How the number of workers follows a load that rises and falls.

    python benchmarks/autoscale.py [--minutes 6] [--swings 2] [--out FILE]

Requests of 100 ms come at random (Poisson), on new connections, at a rate that swings between 5 and
120 a second. Prints what the policy did: each change with the load that called for it, and what was
lost. The target is four requests in flight for each worker, so the peak of 12 in flight needs
three workers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx
from harness.proc import free_port

APP = """
import asyncio

async def app(scope, receive, send):
    assert scope["type"] == "http"
    await asyncio.sleep(0.1)
    headers = [(b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body"})
"""
CONFIG = """
[services.web]
app = "main:app"
listen = "127.0.0.1:{port}"
log.access = false
autoscale = {{ max = 6, target_in_flight = 4, up_after = "5s", down_after = "30s" }}
"""
LOWEST, HIGHEST = 5.0, 120.0


def rate(elapsed: float, seconds: float, swings: int) -> float:
    """Requests a second, so long after the begin."""
    swing = (1 - math.cos(2 * math.pi * swings * elapsed / seconds)) / 2
    return LOWEST + (HIGHEST - LOWEST) * swing


async def ask(port: int, tally: Counter[str]) -> None:
    """One request on a connection of its own."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        line = await asyncio.wait_for(reader.readline(), 30)
        writer.close()
        tally["answered" if b" 200 " in line else f"lost: {line!r}"] += 1
    except (OSError, TimeoutError) as error:
        tally[f"lost: {error!r}"] += 1


async def load(port: int, seconds: float, swings: int) -> Counter[str]:
    """Requests until `seconds` have passed; what became of them."""
    tally: Counter[str] = Counter()
    chance = random.Random(1)
    begin = due = time.monotonic()
    async with asyncio.TaskGroup() as group:
        while (elapsed := due - begin) < seconds:
            await asyncio.sleep(due - time.monotonic())
            group.create_task(ask(port, tally))
            due += chance.expovariate(rate(elapsed, seconds, swings))
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--swings", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    seconds = 60 * options.minutes
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        (folder / "main.py").write_text(APP)
        (folder / "servd.toml").write_text(CONFIG.format(port=port))
        log = folder / "log"
        daemon = subprocess.Popen(
            [sys.executable, "-m", "servd", "--config", str(folder / "servd.toml")],
            env={**os.environ, "SERVD_DAEMON__RUNTIME_DIR": str(folder / "run")},
            stdout=log.open("wb"), stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            wait_until_ready(port)
            begin = time.time()
            tally = asyncio.run(load(port, seconds, options.swings))
        finally:
            daemon.terminate()
            daemon.wait()
        events = [json.loads(line) for line in log.read_text().splitlines() if line[:1] == "{"]
    text = report([e for e in events if e["event"] == "workers autoscaled"], begin, tally, options)
    print(text)
    if options.out is not None:
        options.out.write_text(text)


def wait_until_ready(port: int) -> None:
    """Returns once it answers."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise SystemExit("the daemon did not start")


def report(
    changes: list[dict[str, object]], begin: float, tally: Counter[str], options: argparse.Namespace
) -> str:
    """The changes as a table, and what became of the requests."""
    from datetime import datetime

    seconds = 60 * options.minutes
    lines = ["| after s | requests/s | in flight, mean | workers |", "|---|---|---|---|"]
    for change in changes:
        at = datetime.fromisoformat(str(change["timestamp"])).timestamp() - begin
        asked = rate(at, seconds, options.swings)
        workers = f"{change['before']} to {change['workers']}"
        lines.append(f"| {at:.0f} | {asked:.0f} | {change['in_flight']} | {workers} |")
    lost = sum(count for what, count in tally.items() if what != "answered")
    lines += [
        "",
        f"{tally['answered']} answered, {lost} lost {dict(tally) if lost else ''}".rstrip(),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
