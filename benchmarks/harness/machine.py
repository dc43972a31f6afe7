"""What the results were measured on."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from harness.servers import BEFORE, Server, versions

ROOT = Path(__file__).parents[2]


def about(servers: Sequence[Server], options: Sequence[str]) -> list[str]:
    """Lines of Markdown: the commit, the machine, its load, and the versions."""
    lines = [
        f"- Commit {commit()}, {time.strftime('%Y-%m-%d', time.gmtime())}, `{said(options)}`",
        (
            f"- {len(os.sched_getaffinity(0))} CPUs ({cpu_model()}), {memory_gib():.0f} GiB,"
            f" Linux {platform.release()}"
        ),
        f"- Before the run: {load()}",
    ]
    seen: dict[str, list[str]] = {}
    for server in servers:
        found = ", ".join(f"{name} {number}" for name, number in versions(server.python).items())
        if server.name == BEFORE:
            found = f"commit {commit(_home(server.python))}, {found}"
        kind = BEFORE if server.name == BEFORE else ("servd" if server.is_servd else "the peers")
        seen.setdefault(found, []).append(kind)
    for found, kinds in seen.items():
        lines.append(f"- Versions of {' and '.join(dict.fromkeys(kinds))}: {found}")
    return lines


def said(options: Sequence[str]) -> str:
    """The command, without the folders of this machine."""
    shown = [os.path.basename(one) if os.path.isabs(one) else one for one in options]
    return shlex.join(["run.py", *shown])


def commit(checkout: Path = ROOT) -> str:
    """The commit of a checkout, and whether files differ from it."""

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = " with changes" if git("status", "--porcelain", "-uno") else ""
    return f"{git('rev-parse', '--short=12', 'HEAD') or 'unknown'}{changed}"


def _home(python: Path) -> Path:
    """The folder of the servd that an interpreter runs."""
    command = [str(python), "-c", "import servd; print(servd.__path__[0])"]
    # from a folder without a servd of its own, which would be imported in its place
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=True)
    return Path(done.stdout.strip())


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return " ".join(line.partition(":")[2].split())
    return platform.machine()


def memory_gib() -> float:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE") / 2**30


def load(seconds: float = 2.0) -> str:
    """The load average, and how much of the CPUs others used in the last seconds."""
    before = cpu_line(Path("/proc/stat").read_text())
    time.sleep(seconds)
    after = cpu_line(Path("/proc/stat").read_text())
    busy, stolen = shares(before, after)
    averages = " ".join(f"{value:.2f}" for value in os.getloadavg())
    return f"load {averages}, {busy:.0f} % of the CPUs busy, {stolen:.0f} % stolen"


def cpu_line(text: str) -> list[int]:
    """user, nice, system, idle, iowait, irq, softirq, steal of all CPUs."""
    return [int(number) for number in text.splitlines()[0].split()[1:9]]


def shares(before: Sequence[int], after: Sequence[int]) -> tuple[float, float]:
    """Percent busy (without what was stolen) and percent stolen between two readings."""
    spent = [b - a for a, b in zip(before, after, strict=True)]
    total = sum(spent) or 1
    stolen = spent[7]
    busy = total - spent[3] - spent[4] - stolen
    return 100 * busy / total, 100 * stolen / total
