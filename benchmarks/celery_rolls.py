"""Whether rolls of a celery worker and of beat lose tasks, or run one twice.

    python benchmarks/celery_rolls.py --celery VENV/bin/celery [--rolls 10]

Runs sample-configs/celery with a real redis (redis-server on PATH), sends a task of 0.2 s ten times
a second, and rolls worker and beat one after the other. Fails when a task was lost or ran twice, or
when two ticks of beat came within half a second.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from harness.proc import free_port

SAMPLE = Path(__file__).parents[1] / "sample-configs" / "celery"
SEND = """
import sys, time
from tasks import work
number = 0
while not sys.stdin.closed:
    work.delay(number)
    print(number, flush=True)
    number += 1
    time.sleep(0.1)
"""
COUNT = """
import json
from tasks import counts
ran = {int(k): int(v) for k, v in counts.hgetall("ran").items()}
print(json.dumps([ran, [float(t) for t in counts.lrange("ticks", 0, -1)], counts.llen("celery")]))
"""


class Trial:
    """The sample under servd in a folder of its own."""

    def __init__(self, folder: Path, celery: Path) -> None:
        port = free_port()
        self.folder = folder
        self.python = celery.with_name("python")
        self.environ = {
            **os.environ,
            "CELERY": str(celery),
            "REDIS_PORT": str(port),
            "REDIS_URL": f"redis://127.0.0.1:{port}/0",
            "SERVD_DAEMON__RUNTIME_DIR": str(folder / "run"),
        }

    def servd(self, *arguments: str) -> list[str]:
        config = str(self.folder / "servd.toml")
        return [sys.executable, "-m", "servd", *arguments, "--config", config]

    @property
    def has_started(self) -> bool:
        return '"servd ready"' in (self.folder / "log").read_text()

    def tell(self, *arguments: str) -> None:
        subprocess.run(
            self.servd(*arguments), env=self.environ, check=True, stdout=subprocess.DEVNULL
        )

    def run_python(self, code: str, **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(self.python), "-c", code],
            cwd=self.folder,
            env=self.environ,
            stdout=subprocess.PIPE,
            text=True,
            **options,
        )

    def counts(self) -> tuple[dict[int, int], list[float], int]:
        process = self.run_python(COUNT)
        ran, ticks, queued = json.loads(process.communicate()[0])
        return {int(number): count for number, count in ran.items()}, ticks, queued


def rolled(trial: Trial, rolls: int) -> tuple[int, float]:
    """Sends tasks while worker and beat are rolled; returns how many, and the seconds it took."""
    sent: list[str] = []
    sender = trial.run_python(SEND, stdin=subprocess.PIPE)
    assert sender.stdout is not None
    reading = threading.Thread(target=sent.extend, args=(sender.stdout,))
    reading.start()
    begun = time.monotonic()
    for number in range(1, rolls + 1):
        trial.tell("restart", "worker")
        trial.tell("restart", "beat")
        print(f"roll {number}: {len(sent)} tasks sent", flush=True)
    seconds = time.monotonic() - begun
    sender.send_signal(signal.SIGTERM)
    sender.wait()
    reading.join()
    return len(sent), seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--celery", type=Path, required=True)
    parser.add_argument("--rolls", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sc", dir="/tmp") as name:
        folder = Path(name)
        for file in ("servd.toml", "tasks.py"):
            shutil.copy(SAMPLE / file, folder)
        trial = Trial(folder, options.celery.absolute())
        with (folder / "log").open("wb") as log:
            daemon = subprocess.Popen(trial.servd(), env=trial.environ, stdout=log, stderr=log)
        try:
            return judge(trial, options.rolls)
        finally:
            daemon.terminate()
            daemon.wait()


def judge(trial: Trial, rolls: int) -> int:
    while not trial.has_started:
        time.sleep(0.1)
    sent, seconds = rolled(trial, rolls)
    deadline = time.monotonic() + 120
    while True:
        ran, ticks, queued = trial.counts()
        if (len(ran) >= sent and not queued) or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    lost = set(range(sent)) - ran.keys()
    doubled = {number: count for number, count in ran.items() if count > 1}
    gaps = [b - a for a, b in itertools.pairwise(ticks)]
    print(
        f"{rolls} rolls of worker and beat in {seconds:.0f} s: {sent} tasks sent, {len(lost)} lost,"
        f" {len(doubled)} doubled; {len(ticks)} ticks, {min(gaps):.2f} to {max(gaps):.2f} s apart"
    )
    return int(bool(lost or doubled or min(gaps) < 0.5))


if __name__ == "__main__":
    sys.exit(main())
