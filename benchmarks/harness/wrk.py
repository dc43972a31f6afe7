"""One phase of load by wrk (Debian's package)."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Load:
    """What wrk says about it."""

    requests: int
    errors: int
    per_second: float
    p50_ms: float
    p99_ms: float


def load(url: str, seconds: float, connections: int, cpus: Sequence[int] = ()) -> Load:
    """Asks `url` for so many seconds (whole ones: wrk takes no others); `cpus` are wrk's own.

    Raises ValueError where wrk says what is not understood, and OSError where there is none.
    """
    command = ["wrk", "-t1", f"-c{connections}", f"-d{math.ceil(seconds)}s", "--latency", url]
    if shutil.which("wrk") is None:
        raise OSError("wrk is missing: apt-get install wrk")
    if cpus:
        command = ["taskset", "-c", ",".join(map(str, cpus)), *command]
    return parsed(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def parsed(output: str) -> Load:
    errors = sum(int(n) for n in re.findall(r"Non-2xx or 3xx responses: (\d+)", output))
    for line in re.findall(r"Socket errors: (.*)", output):
        errors += sum(int(n) for n in re.findall(r"\d+", line))
    return Load(
        int(_first(r"(\d+) requests in", output)),
        errors,
        float(_first(r"Requests/sec:\s+([\d.]+)", output)),
        _milliseconds(_first(r"(?m)^ +50%\s+(\S+)", output)),
        _milliseconds(_first(r"(?m)^ +99%\s+(\S+)", output)),
    )


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"wrk said what is not understood:\n{text}")
    return found[1]


def _milliseconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]
