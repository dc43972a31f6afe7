"""What clients that send a byte a second cost everybody else.

    python benchmarks/slowloris.py [--connections 500] [--seconds 8] [--rounds 3] [--gate 2]

One worker with `timeouts.headers = "3s"`. Half of the slow connections drip their headers, half
their bodies; whenever one is ended, another takes its place. Beside them a client asks 200 times a
second on kept connections, with and without the slow ones in turn. `--gate` makes it fail when the
p99 of the client is more than so many times that without them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness.proc import free_port

APP = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})
"""
CONFIG = """
[services.web]
app = "main:app"
listen = "127.0.0.1:{port}"
timeouts = {{ headers = "3s", body = "3s" }}
log = {{ access = false }}
"""
HEAD = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n"


async def dripping(port: int, drips_head: bool) -> None:
    """One slow client after another, for ever."""
    await asyncio.sleep(random.random())
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            ended = asyncio.ensure_future(reader.read())
            writer.write(HEAD if drips_head else HEAD + b"\r\n")
            while not ended.done():
                writer.write(b"x")
                await asyncio.wait({ended}, timeout=1.0)
            writer.close()


async def attack(port: int, connections: int) -> None:
    """All slow clients, in a process of their own."""
    await asyncio.gather(*(dripping(port, bool(kind % 2)) for kind in range(connections)))


async def asking(port: int, seconds: float) -> list[float]:
    """How long each of 200 requests a second took."""
    found: list[float] = []
    end = time.monotonic() + seconds

    async def one(worker: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.sleep(worker / 200)
        while time.monotonic() < end:
            started = time.perf_counter()
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            await reader.readuntil(b"\r\n\r\nok")
            found.append(time.perf_counter() - started)
            await asyncio.sleep(0.05)
        writer.close()

    await asyncio.gather(*(one(worker) for worker in range(10)))
    return found


async def measured(port: int, options: argparse.Namespace) -> tuple[list[float], list[float]]:
    """p99 in milliseconds of each phase, without and with slow clients."""
    alone: list[float] = []
    beside: list[float] = []
    for _ in range(options.rounds):
        for slow in (False, True, True, False):
            count = options.connections if slow else 0
            attacker = await asyncio.create_subprocess_exec(
                sys.executable, __file__, "--attack", f"{port},{count}"
            )
            await asyncio.sleep(3)
            took = await asking(port, options.seconds)
            (beside if slow else alone).append(statistics.quantiles(took, n=100)[98] * 1000)
            with contextlib.suppress(ProcessLookupError):  # without slow clients it has ended
                attacker.kill()
            await attacker.wait()
    return alone, beside


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--connections", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gate", type=float)
    parser.add_argument("--attack", help=argparse.SUPPRESS)
    options = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    if options.attack:
        os.nice(19)  # real ones are on other machines
        asyncio.run(attack(*map(int, options.attack.split(","))))
        return
    with tempfile.TemporaryDirectory(prefix="sb", dir="/tmp") as name:
        folder, port = Path(name), free_port()
        (folder / "main.py").write_text(APP)
        (folder / "servd.toml").write_text(CONFIG.format(port=port))
        environ = {**os.environ, "SERVD_DAEMON__RUNTIME_DIR": str(folder / "run")}
        daemon = subprocess.Popen(
            [sys.executable, "-m", "servd", "--config", "servd.toml"],
            cwd=folder,
            env=environ,
            stderr=subprocess.PIPE,
        )
        try:
            assert daemon.stderr is not None
            while b"servd ready" not in daemon.stderr.readline():
                pass
            drain = subprocess.Popen(["cat"], stdin=daemon.stderr, stdout=subprocess.DEVNULL)
            alone, beside = asyncio.run(measured(port, options))
        finally:
            daemon.terminate()
            daemon.wait()
            drain.wait()
    ratio = statistics.median(beside) / statistics.median(alone)
    print(
        f"p99 alone {statistics.median(alone):.2f} ms, beside {options.connections} slow clients"
        f" {statistics.median(beside):.2f} ms: {ratio:.2f} times"
    )
    if options.gate and ratio > options.gate:
        sys.exit(f"above {options.gate}")


if __name__ == "__main__":
    main()
