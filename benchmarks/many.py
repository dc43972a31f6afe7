"""What many services cost: 100 with two workers each, by default.

    python benchmarks/many.py [--services 100] [--workers 2] [--seconds 60] [--page] [--gate]

Services stand in chains of four. Measured: the time until all are ready, `servd status` (whole
process, from the shell), and the CPU time of the daemon: idle, with /metrics scraped every five
seconds, and (--page, with Chromium) with the page open, whose frames are counted meanwhile.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
from harness.proc import cpu_seconds

APP = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})
"""
SCRAPE_EVERY = 5.0
STATUS_GATE, CPU_GATE = 300.0, 3.0
"""Milliseconds of `servd status`, and percent of one CPU that the daemon may use."""

FRAMES = """
    seconds => new Promise(done => {
        const gaps = [];
        let last = performance.now();
        const end = last + seconds * 1000;
        const frame = now => {
            gaps.push(now - last);
            last = now;
            if (now < end) requestAnimationFrame(frame);
            else done(gaps);
        };
        requestAnimationFrame(frame);
    })
"""


def config(services: int, workers: int) -> str:
    """Chains of four, the first of each listening."""
    tables = []
    for number in range(services):
        lines = [f"[services.s{number:03}]", 'app = "main:app"', f"workers = {workers}"]
        if number % 4 == 0:
            lines.append('listen = "127.0.0.1:0"')
        if number % 4 != 3 and number + 1 < services:
            lines.append(f'depends_on = ["s{number + 1:03}"]')
        tables.append("\n".join(lines))
    return '[defaults]\ntimeouts.startup = "5m"\n' + "\n".join(tables) + "\n"


def resident(pid: int) -> float:
    return (
        int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20
    )


class Daemon:
    """servd with its many services, in a folder of its own."""

    def __init__(
        self, folder: Path, services: int, workers: int, python: str = sys.executable
    ) -> None:
        self.folder = folder
        self.environ = {**os.environ, "SERVD_DAEMON__RUNTIME_DIR": str(folder / "run")}
        (folder / "main.py").write_text(APP)
        (folder / "servd.toml").write_text(config(services, workers))
        self.process = subprocess.Popen(
            [python, "-m", "servd"],
            cwd=folder,
            env=self.environ,
            stderr=(folder / "log").open("wb"),
        )
        transport = httpx.HTTPTransport(uds=str(folder / "run" / "admin.sock"))
        self.admin = httpx.Client(transport=transport, base_url="http://servd", timeout=60)

    def until_ready(self) -> float:
        """Seconds until everything is ready."""
        began = time.monotonic()
        while True:
            try:
                if self.admin.get("/readyz").status_code == 200:
                    return time.monotonic() - began
            except httpx.TransportError:
                if self.process.poll() is not None:
                    sys.exit((self.folder / "log").read_text())
            time.sleep(0.2)

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "servd", *arguments],
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            check=True,
        )

    def status_ms(self, times: int = 15) -> list[float]:
        """Milliseconds of whole `servd status` processes."""
        took = []
        for _ in range(times):
            began = time.perf_counter()
            self.cli("status")
            took.append((time.perf_counter() - began) * 1000)
        return took

    def cpu_percent(self, seconds: float, *, scrape: bool) -> float:
        """CPU of the daemon over some time, in percent of one."""
        before, began = cpu_seconds([self.process.pid]), time.monotonic()
        while (gone := time.monotonic() - began) < seconds:
            if scrape:
                self.admin.get("/metrics").raise_for_status()
            time.sleep(min(SCRAPE_EVERY, seconds - gone))
        spent = cpu_seconds([self.process.pid]) - before
        return 100 * spent / (time.monotonic() - began)

    def stop(self) -> float:
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(120)
        return time.monotonic() - began


def page(daemon: Daemon, seconds: float) -> tuple[float, list[float]]:
    """CPU of the daemon with its page open, and milliseconds between frames of the page."""
    from playwright.sync_api import sync_playwright

    dashboard = subprocess.Popen(
        [sys.executable, "-m", "servd", "dashboard", "--no-browser"],
        cwd=daemon.folder,
        env=daemon.environ,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert dashboard.stdout is not None
    url = dashboard.stdout.readline().strip()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        shown = browser.new_page(viewport={"width": 1280, "height": 900})
        shown.goto(url)
        shown.wait_for_selector(".service")
        time.sleep(5)
        before, began = cpu_seconds([daemon.process.pid]), time.monotonic()
        gaps = shown.evaluate(FRAMES, seconds)
        spent = cpu_seconds([daemon.process.pid]) - before
        percent = 100 * spent / (time.monotonic() - began)
        browser.close()
    dashboard.send_signal(signal.SIGINT)
    dashboard.wait(10)
    return percent, gaps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--page", action="store_true")
    parser.add_argument("--gate", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sm", dir="/tmp") as folder:
        daemon = Daemon(Path(folder), options.services, options.workers)
        try:
            print(f"{options.services} services, {options.services * options.workers} workers")
            print(f"ready after {daemon.until_ready():.1f} s")
            time.sleep(5)
            took = daemon.status_ms()
            status = statistics.median(took)
            print(f"servd status: median {status:.0f} ms, slowest {max(took):.0f} ms")
            idle = daemon.cpu_percent(options.seconds, scrape=False)
            scraped = daemon.cpu_percent(options.seconds, scrape=True)
            print(f"daemon: {idle:.2f} % of a CPU idle, {scraped:.2f} % with /metrics every 5 s,")
            print(f"        {resident(daemon.process.pid):.0f} MiB resident")
            if options.page:
                percent, gaps = page(daemon, min(20.0, options.seconds))
                gaps.sort()
                p99 = gaps[int(len(gaps) * 0.99)]
                print(f"page: {len(gaps)} frames, median {statistics.median(gaps):.1f} ms apart,")
                print(f"      p99 {p99:.0f} ms, longest {gaps[-1]:.0f} ms; daemon {percent:.2f} %")
            print(f"stopped after {daemon.stop():.1f} s")
        finally:
            if daemon.process.poll() is None:
                daemon.process.kill()
    if options.gate and (status > STATUS_GATE or scraped > CPU_GATE):
        sys.exit(f"gates: status {STATUS_GATE:.0f} ms, daemon {CPU_GATE} %")


if __name__ == "__main__":
    main()
