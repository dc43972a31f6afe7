"""servd beside its peers: every comparison of the documentation in one run, as tables and plots.

    python benchmarks/run.py --peers peers [--quick] [--only NAME] [--readme]

Servers are measured interleaved (A B C ... C B A), so that a machine that slows down slows all of
them down; figures are medians with 95 % bootstrap intervals. What is not installed is left out,
and a measurement that fails says so in its cell. Needs wrk (Debian's package).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from harness import machine
from harness.measurements import FULL, MEASUREMENTS, QUICK, Plan, say
from harness.plots import plots
from harness.servers import BEFORE, GUNICORN_PRELOAD, Server, found
from harness.tables import Line, Result, page, summary, with_block

ROOT = Path(__file__).parents[1]
PAGE = "results.md"
QUICK_SECONDS = 200.0
"""A quick run begins nothing after this, and so ends within five minutes."""

SHORT = (
    Line("first answer, 4 workers", "start", ("first",), "{:.2f} s"),
    Line("memory, 4 workers", "start", ("memory",), "{:.0f} MiB"),
    Line("killed worker: next answer, lost", "kill", ("again", "lost"), "{:.2f} s, {:.0f}"),
    Line("busiest of 4 workers over mean, 64 at once", "bursts-4", ("64-0.0",), "{:.2f}"),
    Line("requests/s, 2 workers, access log", "throughput-log", ("per_second",), "{:.0f}"),
    Line("CPU per request, without access log", "throughput", ("cpu",), "{:.0f} µs"),
    Line("CPU per request, access log", "throughput-log", ("cpu",), "{:.0f} µs"),
)
"""The table of the README."""


def main() -> None:
    options = parse()
    signal.signal(signal.SIGTERM, interrupted)  # every server that was started is ended
    plan = dataclasses.replace(QUICK if options.quick else FULL, pin=options.pin)
    servers = list(found(options.peers, options.servd, say))
    about = machine.about(servers, sys.argv[1:])
    results: list[Result] = []
    began = time.monotonic()
    try:
        for name in options.only or MEASUREMENTS:
            if options.quick and not options.only and time.monotonic() - began > QUICK_SECONDS:
                say(f"left out: {name} (the machine is too slow for a quick run)")
                continue
            results += measured(name, servers, plan)
    except KeyboardInterrupt:
        say("interrupted: nothing is written")
        sys.exit(130)
    if options.json:
        options.json.write_text(json.dumps(samples(results, about), indent=1))
    write(results, about, options.out)
    if options.readme:
        readme(results, servers)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peers", type=Path, help="virtual environment with the other servers")
    parser.add_argument("--servd", type=Path, metavar="PYTHON", help=f'measured as "{BEFORE}"')
    parser.add_argument(
        "--quick", action="store_true", help="few samples; at most five minutes without --only"
    )
    parser.add_argument(
        "--only", action="append", choices=MEASUREMENTS, help="this one alone (may be repeated)"
    )
    parser.add_argument(
        "--pin", action="store_true", help="workers on the first CPU, wrk on the others"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "docs" / "benchmarks", help="tables and plots go there"
    )
    parser.add_argument("--readme", action="store_true", help="rewrite the table of README.md")
    options = parser.parse_args()
    if options.readme and options.only and set(options.only) != set(MEASUREMENTS):
        parser.error("--readme needs every measurement: leave out --only")
    return options


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def measured(name: str, servers: Sequence[Server], plan: Plan) -> list[Result]:
    began = time.monotonic()
    say(f"{name} ...")
    results = MEASUREMENTS[name](servers, plan)
    say(f"{name}: {time.monotonic() - began:.0f} s")
    return results


def samples(results: Sequence[Result], about: Sequence[str]) -> dict[str, object]:
    """Everything that was measured, for a file."""
    return {
        "about": list(about),
        "results": {
            result.name: {"samples": result.samples, "failed": result.failed} for result in results
        },
    }


def write(results: Sequence[Result], about: Sequence[str], folder: Path) -> None:
    """The page of tables, and its plots."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures: dict[str, list[str]] = {}
    try:
        pictures = {result.name: plots(result, folder) for result in results}
    except ImportError:
        say("left out: plots (matplotlib is not installed)")
    text = page(results, about, pictures)
    (folder / PAGE).write_text(text)
    print(text)
    say(f"written to {os.path.relpath(folder)}")


def readme(results: Sequence[Result], servers: Sequence[Server]) -> None:
    path = ROOT / "README.md"
    names = [one.name for one in servers if one.name not in (BEFORE, GUNICORN_PRELOAD)]
    path.write_text(with_block(path.read_text(), summary(SHORT, results, names)))


if __name__ == "__main__":
    main()
