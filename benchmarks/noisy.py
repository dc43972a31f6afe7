"""What a service that prints without end costs the supervisor and its other services.

    python benchmarks/noisy.py [--seconds 20] [--supervisord PATH] [--gate]

`yes` runs beside a quiet program (`sleep`). For so many seconds the supervisor is asked whether it
lives (servd: /livez; supervisord: supervisor.getState), 20 times a second, and the quiet program is
killed every 2 seconds: how long until another runs? Then SIGTERM: how long until all has ended? The
same without `yes`. `--gate` makes it fail when, beside `yes`, the 99th percentile of an answer is
over 100 ms, a replacement takes over 0.2 s, or the end over 1 s.
"""

from __future__ import annotations

import argparse
import http.client
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil

QUIET = "1000003"
"""Seconds that the quiet program sleeps: tells it from any other."""

SERVD = f"""
[daemon]
log.file = "servd.log"
watch = false
runtime_dir = "run"
[services.quiet]
command = ["sleep", "{QUIET}"]
restart = {{ backoff = "1ms", backoff_max = "1ms" }}
"""
SERVD_NOISY = '[services.noisy]\ncommand = ["yes"]\n'
SUPERVISORD = f"""
[supervisord]
logfile = super.log
pidfile = super.pid
nodaemon = true
[unix_http_server]
file = super.sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[program:quiet]
command = sleep {QUIET}
startsecs = 0
autorestart = true
"""
SUPERVISORD_NOISY = "[program:noisy]\ncommand = yes\n"


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=60)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(self.path)


def ask(path: str, method: str, route: str, body: str = "") -> None:
    connection = UnixConnection(path)
    connection.request(method, route, body, {"content-type": "text/xml"} if body else {})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    assert answer.status == 200, answer.status


def quiet_pid(parent: int) -> int | None:
    """The quiet program, if one runs."""
    for child in psutil.Process(parent).children(recursive=True):
        try:
            if child.cmdline()[:2] == ["sleep", QUIET]:
                return child.pid
        except psutil.NoSuchProcess:
            continue
    return None


def wait_for(condition: Callable[[], bool], seconds: float) -> float:
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            return float("inf")
        time.sleep(0.005)
    return time.monotonic() - began


def replacement(parent: int) -> float:
    """Kills the quiet program; returns the seconds until another runs."""
    before = quiet_pid(parent)
    if before is not None:
        os.kill(before, signal.SIGKILL)
    return wait_for(lambda: quiet_pid(parent) not in (None, before), 60)


def trial(
    command: list[str], lives: Callable[[], None], folder: str, seconds: float
) -> list[float]:
    """Median and 99th percentile of an answer, longest replacement, and end, in seconds."""
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        assert wait_for(lambda: quiet_pid(process.pid) is not None, 30) < 30
        time.sleep(2.0)  # the noise is at its height
        answers, replacements = [], []
        end = time.monotonic() + seconds
        kill_at = time.monotonic() + 1.0
        while time.monotonic() < end:
            began = time.monotonic()
            lives()
            answers.append(time.monotonic() - began)
            if time.monotonic() >= kill_at:
                kill_at += 2.0
                replacements.append(replacement(process.pid))
            time.sleep(max(0.0, 0.05 - (time.monotonic() - began)))
        process.terminate()
        began = time.monotonic()
        process.wait(120)
        ended = time.monotonic() - began
    finally:
        process.kill()
    percentiles = statistics.quantiles(answers, n=100)
    return [statistics.median(answers), percentiles[98], max(replacements), ended]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--supervisord", default="")
    parser.add_argument("--gate", action="store_true")
    options = parser.parse_args()
    print("                        answer p50      p99  replaced     ended")
    gated: list[float] = []
    with tempfile.TemporaryDirectory(prefix="sd", dir="/tmp") as folder:
        root = Path(folder)
        for noisy in (False, True):
            (root / "servd.toml").write_text(SERVD + SERVD_NOISY * noisy)
            servd = [sys.executable, "-m", "servd", "--config", "servd.toml"]
            socket_path = f"{folder}/run/admin.sock"
            found = trial(
                servd,
                partial(ask, socket_path, "GET", "/livez"),
                folder,
                options.seconds,
            )
            show(f"servd{', yes' * noisy}", found)
            gated = found
            if options.supervisord:
                (root / "super.conf").write_text(SUPERVISORD + SUPERVISORD_NOISY * noisy)
                state = xmlrpc.client.dumps((), "supervisor.getState")
                command = [options.supervisord, "-c", "super.conf"]
                path = f"{folder}/super.sock"
                show(
                    f"supervisord{', yes' * noisy}",
                    trial(
                        command,
                        partial(ask, path, "POST", "/RPC2", state),
                        folder,
                        options.seconds,
                    ),
                )
    if options.gate and (gated[1] > 0.1 or gated[2] > 0.2 or gated[3] > 1.0):
        sys.exit("over the gate")


def show(name: str, found: list[float]) -> None:
    print(f"{name:<22}" + "".join(f"{value * 1000:9.1f}" for value in found) + "  ms", flush=True)


if __name__ == "__main__":
    main()
