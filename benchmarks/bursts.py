"""How evenly new connections are spread over the workers of a service.

    python benchmarks/bursts.py [--rounds 20] [--gate 1.15]

Bursts of connections, at once or 5 ms apart, each of which asks once and stays open; then all end.
Shown is the worker with the most connections against the mean: the median of the rounds and the
worst. Uvicorn with as many workers runs in turn. `--gate` makes it fail when the median of servd is
above it in any of the patterns.
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
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from harness.proc import free_port
from harness.running import RAW

CONFIG = """
[services.web]
app = "main:app"
listen = "127.0.0.1:{port}"
workers = {workers}
"""
PATTERNS = ((2, 32, 0.0), (4, 32, 0.0), (4, 64, 0.0), (4, 32, 0.005), (2, 32, 0.005))
"""Workers, connections, and seconds between two of them."""


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


@contextlib.contextmanager
def served(kind: str, workers: int, folder: Path) -> Iterator[int]:
    """The port of a server with so many workers."""
    port = free_port()
    (folder / "main.py").write_text(RAW)
    (folder / "servd.toml").write_text(CONFIG.format(port=port, workers=workers))
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
    parser.add_argument("--gate", type=float)
    options = parser.parse_args()
    worst = 0.0
    print("workers  connections  apart    servd          uvicorn")
    for workers, connections, apart in PATTERNS:
        shown: dict[str, str] = {}
        for kind in ("servd", "uvicorn"):
            with (
                tempfile.TemporaryDirectory(prefix="sb", dir="/tmp") as name,
                served(kind, workers, Path(name)) as port,
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
