"""What Ray Serve costs beside servd: memory before the first app, and CPU per request.

    .ci/setup ray && python benchmarks/ray.py [--requests 2000] [--clients 8] [--json FILE]

Both run one worker, or replica, of a raw ASGI app, and of one that asks another service for each
request. Neither writes an access log. Ray has one node. CPU is that of all processes, while clients
are answered, without what the same processes use in the same time when nobody asks. Memory is PSS:
what processes have, with their share of what several have.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))

import httpx
from harness.machine import cpu_model, load, memory_gib
from harness.proc import cpu_of_each, pss_mib, tree

from support.harness import servd_for
from support.ray_cluster import ANSWER_SECONDS, ray_cluster

CONFIG = """
[defaults]
log = {{ access = false }}

[services.web]
app = "{app}"
listen = "127.0.0.1:{port}"
depends_on = ["inner"]

[services.inner]
app = "plain:app"
"""

PLAIN = """
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})
"""

APP = """
import servd
from plain import app

inner = servd.depends("inner")

async def asks(scope, receive, send):
    if scope["type"] == "http":
        assert (await inner.get("/")).content == b"hello"
        await app(scope, receive, send)

async def streams(scope, receive, send):
    if scope["type"] == "http":
        async with inner.stream("GET", "/") as answer:
            assert await answer.aread() == b"hello"
        await app(scope, receive, send)
"""

APPS = {
    "app": "raw ASGI",
    "asks": "asks a dependency",
    "streams": "streams from a dependency",
}


@dataclass(frozen=True, slots=True)
class Cost:
    """What one engine used for one app."""

    engine: str
    app: str
    cpu_ms: float
    per_second: float


async def asked(url: str, requests: int, clients: int) -> None:
    """Asks on kept connections."""
    left = iter(range(requests))

    async def ask(client: httpx.AsyncClient) -> None:
        for _ in left:
            (await client.get(url)).raise_for_status()

    async with httpx.AsyncClient(timeout=ANSWER_SECONDS) as client:
        await asyncio.gather(*(ask(client) for _ in range(clients)))


def used(pids: Callable[[], list[int]], work: Callable[[], None]) -> tuple[float, float]:
    """The CPU seconds of the processes during `work`, and how long it took."""
    before, begun = cpu_of_each(pids()), time.monotonic()
    work()
    seconds, after = time.monotonic() - begun, cpu_of_each(pids())
    return sum(cpu - before.get(pid, 0.0) for pid, cpu in after.items()), seconds


def cost(
    engine: str, app: str, url: str, pids: Callable[[], list[int]], options: argparse.Namespace
) -> Cost:
    """Measures one engine with one app, after some requests that are not counted."""
    asyncio.run(asked(url, options.requests // 10, options.clients))
    work = asked(url, options.requests, options.clients)
    busy, seconds = used(pids, lambda: asyncio.run(work))
    idle, _ = used(pids, lambda: time.sleep(seconds))
    milliseconds = (busy - idle) * 1000 / options.requests
    return Cost(engine, app, milliseconds, options.requests / seconds)


def write_apps(folder: Path) -> None:
    """Writes the modules of both services."""
    (folder / "plain.py").write_text(PLAIN)
    (folder / "app.py").write_text(APP)


def of_servd(options: argparse.Namespace) -> Iterator[Cost]:
    """Measures servd."""
    with tempfile.TemporaryDirectory() as folder:
        write_apps(Path(folder))
        for make in servd_for(Path(folder)):
            for app in APPS:
                daemon = make(CONFIG.format(app=f"app:{app}", port=0)).ready()
                pids = functools.partial(tree, daemon.pid)
                print(f"servd, with both services: {pss_mib(pids()):.0f} MiB", flush=True)
                yield cost("servd", app, daemon.url("web"), pids, options)
                daemon.stop()


def of_ray(options: argparse.Namespace) -> Iterator[Cost]:
    """Measures Ray."""
    with tempfile.TemporaryDirectory() as name, ray_cluster(nodes=1) as ray:
        folder = Path(name)
        write_apps(folder)
        print(f"Ray, before the first app: {pss_mib(ray.pids()):.0f} MiB", flush=True)
        for app in APPS:
            ray.deploy(folder, CONFIG.format(app=f"app:{app}", port=ray.port))
            print(f"Ray, with both services: {pss_mib(ray.pids()):.0f} MiB", flush=True)
            yield cost("Ray Serve", app, ray.url, ray.pids, options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    print(f"{len(os.sched_getaffinity(0))} CPUs ({cpu_model()}), {memory_gib():.0f} GiB, {load()}")
    costs = [*of_servd(options), *of_ray(options)]
    print("\n| app | engine | CPU ms/request | requests/s |\n|---|---|---|---|")
    for each in sorted(costs, key=lambda one: one.app):
        print(f"| {APPS[each.app]} | {each.engine} | {each.cpu_ms:.2f} | {each.per_second:.0f} |")
    if options.json:
        Path(options.json).write_text(json.dumps([asdict(each) for each in costs], indent=2))


if __name__ == "__main__":
    main()
