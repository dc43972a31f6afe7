"""How long admitted requests take under fourfold overload, beside the same worker unloaded.

    python benchmarks/overload.py [--rounds 5] [--seconds 4] [--gate 2.0]

One worker with `limits.concurrency = 8`, an endpoint that takes 50 ms: eight clients alone, then 32
of them, who come back 50 ms after they were turned away. Rounds alternate; figures are medians.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from pathlib import Path

from throughput import running, servd_command

APP = """
import asyncio
from fastapi import FastAPI

app = FastAPI()


@app.get("/ping")
async def ping() -> dict[str, str]:
    return {"ping": "pong"}


@app.get("/work")
async def work() -> dict[str, str]:
    await asyncio.sleep(0.05)
    return {"work": "done"}
"""
PLACES = 8


def commands(folder: Path) -> dict[str, list[str]]:
    """One daemon with one worker."""
    (folder / "slow.py").write_text(APP)
    lines = [f"limits.concurrency = {PLACES}"]
    return {"servd": servd_command(folder, "servd", lines, app="slow:app")}


async def load(port: int, clients: int, seconds: float) -> tuple[list[float], int]:
    """Milliseconds of the requests that were admitted, and how many were not."""
    took: list[float] = []
    refused = 0
    end = time.monotonic() + seconds

    async def one() -> None:
        nonlocal refused
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.monotonic() < end:
            began = time.perf_counter()
            writer.write(b"GET /work HTTP/1.1\r\nHost: localhost\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
            await reader.readexactly(length)
            status = head.split(b" ", 2)[1]
            if status == b"200":
                took.append((time.perf_counter() - began) * 1000)
            elif status == b"503":
                refused += 1
                await asyncio.sleep(0.05)
            else:
                sys.exit(f"the answer was {status.decode()}")
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(one() for _ in range(clients)))
    return took, refused


def p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--gate", type=float, help="fail when the p99 grows by more than this")
    options = parser.parse_args()
    found: dict[int, list[tuple[float, float, int, int]]] = {PLACES: [], 4 * PLACES: []}
    with running(commands) as (servd,):
        for _ in range(options.rounds):
            for clients, rows in found.items():
                took, refused = asyncio.run(load(servd.port, clients, options.seconds))
                rows.append((statistics.median(took), p99(took), len(took), refused))
    print("| clients | p50 ms | p99 ms | admitted | turned away (503) |")
    print("|---|---|---|---|---|")
    medians: list[float] = []
    for clients, rows in found.items():
        middle, late = (float(statistics.median(row[index] for row in rows)) for index in (0, 1))
        admitted, turned_away = (sum(row[index] for row in rows) for index in (2, 3))
        medians.append(late)
        print(f"| {clients} | {middle:.1f} | {late:.1f} | {admitted} | {turned_away} |")
    ratio = medians[1] / medians[0]
    print(f"\np99 of what is admitted, under fourfold load: {ratio:.2f} of the unloaded one")
    if options.gate and ratio > options.gate:
        sys.exit(f"above {options.gate}")


if __name__ == "__main__":
    main()
