"""What servd adds to a request, part by part: CPU per request beside bare uvicorn, on the same app.

    python benchmarks/overhead.py [--rounds 10] [--seconds 3] [--gate]

Run and measured as `throughput.py` does it: rounds forwards and backwards, workers pinned to one
CPU, CPU time of the workers per request. Each part is also run alone, and its cost is what it adds
to servd with nothing on. (Counting for /metrics is never off; ids are made when somebody asks for
them, which the access log does.)
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

from harness.stats import interval
from throughput import Sample, measured, parser_for, ratios, report, servd_command

UVICORN = ["-m", "uvicorn", "main:app", "--port", "PORT", "--workers", "1"]
QUIET = "log = { access = false }"
TIMEOUTS = 'timeouts = { request = "30s", request_total = "60s" }'
LIMITS = "limits = { concurrency = 100, queue = 100 }"
NOTHING, EVERYTHING = "servd, metrics alone", "servd, everything on"

PARTS = {
    NOTHING: [QUIET],
    "servd, timeouts": [QUIET, TIMEOUTS],
    "servd, concurrency limit": [QUIET, LIMITS],
    "servd, access log and request ids": ["log = { access = true }"],
    EVERYTHING: ["log = { access = true }", TIMEOUTS, LIMITS],
}
GATES = {NOTHING: 1.03, EVERYTHING: 1.10}
"""The most that a contender may cost, as a ratio of bare uvicorn."""


def commands(folder: Path) -> dict[str, list[str]]:
    """How each contender is started; PORT stands for its port."""
    quiet = ["--no-access-log", "--log-level", "warning"]
    found = {"uvicorn": [sys.executable, *UVICORN, *quiet]}
    for number, (name, lines) in enumerate(PARTS.items()):
        found[name] = servd_command(folder, str(number), lines)
    return found


def costs(samples: dict[str, list[Sample]]) -> None:
    """What each part adds to a request, in microseconds of CPU."""
    print("\n| part | adds us/request (95 %) |")
    print("|---|---|")
    for name, base in ((NOTHING, "uvicorn"), *((n, NOTHING) for n in PARTS if n != NOTHING)):
        pairs = zip(samples[name], samples[base], strict=True)
        added = [one.cpu_us - other.cpu_us for one, other in pairs]
        middle, low, high = interval(added)
        print(f"| {name}, beside {base} | {middle:+.2f} ({low:+.2f} to {high:+.2f}) |")
    bare = statistics.median(sample.cpu_us for sample in samples["uvicorn"])
    print(f"\nbare uvicorn: {bare:.1f} us of CPU a request")


def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--gate", action="store_true", help="fail when a ratio is above its gate")
    options = parser.parse_args()
    samples = measured(commands, options)
    report(samples)
    costs(samples)
    for name, gate in GATES.items():
        ratio = interval(ratios(samples, name, "cpu_us"))[0]
        if options.gate and ratio > gate:
            sys.exit(f"{name}: CPU per request is {ratio:.3f} of uvicorn's, above {gate}")


if __name__ == "__main__":
    main()
