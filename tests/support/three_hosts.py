"""The sample of three hosts behind HAProxy, under load while one is lost and one is restarted.

Run as a program in namespaces of its own (`unshare -nm`): `SAMPLE FOLDER`. Prints what came of it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from support.harness import DEADLINE, wait_until
from support.networks import add_bridge, add_host, cut_off, inside

NETWORK = "10.0.0"
BALANCER = f"{NETWORK}.10"
HOSTS = {f"host{number}": f"{NETWORK}.{number}" for number in (1, 2, 3)}
ROUND = 200


class Load:
    """Eight clients of the balancer, until it is over; what they lost, and which hosts answered."""

    def __init__(self) -> None:
        self.answered: Counter[str] = Counter()
        self.lost: list[str] = []
        self._over = threading.Event()
        self._pool = ThreadPoolExecutor(8)
        self._asking = [self._pool.submit(self._ask) for _ in range(8)]

    def _ask(self) -> None:
        with httpx.Client(timeout=DEADLINE) as client:
            while not self._over.is_set():
                try:
                    answer = client.get(f"http://{BALANCER}:8080/")
                except httpx.TransportError as error:
                    self.lost.append(repr(error))
                    continue
                if answer.status_code == 200:
                    self.answered.update([f"web {answer.json()['web']}", "all"])
                    self.answered.update([f"model {answer.json()['model']}"])
                else:
                    self.lost.append(f"{answer.status_code} {answer.text[:200]}")

    def round(self) -> None:
        """Waits for as many more answers as a round has."""
        before = self.answered["all"]
        wait_until(lambda: self.answered["all"] >= before + ROUND, "a round of answers")

    def end(self) -> None:
        self._over.set()
        for each in self._asking:
            each.result()


class Host:
    """A host with servd."""

    def __init__(self, name: str, sample: Path, folder: Path) -> None:
        self.name, self.address, self.sample = name, HOSTS[name], sample
        self.log = folder / f"{name}.log"
        self.runtime = folder / name
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = [sys.executable, "-m", "servd", "--config", str(self.sample / "servd.toml")]
        self.process = subprocess.Popen(
            inside(self.name, *program),
            env={
                "PATH": os.environ["PATH"],
                "ADDRESS": self.address,
                "SERVD_DAEMON__RUNTIME_DIR": str(self.runtime),
            },
            stdout=self.log.open("ab"),
            stderr=subprocess.STDOUT,
        )

    def wait_until_ready(self) -> None:
        def ready() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()
            try:
                url = f"http://{self.address}:9464/readyz"
                return httpx.get(url, timeout=DEADLINE).status_code == 200
            except httpx.TransportError:
                return False

        wait_until(ready, f"{self.name} is ready")

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE)


def main() -> None:
    sample, folder = Path(sys.argv[1]), Path(sys.argv[2])
    add_bridge(BALANCER)
    hosts = {name: Host(name, sample, folder) for name in HOSTS}
    for host in hosts.values():
        add_host(host.name, host.address)
        host.start()
    haproxy = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin") or ""
    with (folder / "haproxy.log").open("wb") as log:
        balancer = subprocess.Popen(
            [haproxy, "-f", str(sample / "haproxy.cfg")], stdout=log, stderr=log
        )
    found: dict[str, Any] = {}
    try:
        for host in hosts.values():
            host.wait_until_ready()
        wait_until(lambda: _serves(balancer), "the balancer has hosts")
        load = Load()
        load.round()
        cut_off("host2")
        load.round()
        wait_until(lambda: _is_out(hosts["host2"], load), "the lost host is left out")
        found["after_the_loss"] = list(load.lost)
        found["stopped"] = hosts["host1"].stop()
        hosts["host1"].start()
        hosts["host1"].wait_until_ready()
        load.round()
        load.end()
        found |= {"lost": load.lost, "answered": dict(load.answered)}
        found["statuses"] = {n: hosts[n].stop() for n in ("host1", "host3")}
        found["logs"] = {host.name: host.log.read_text() for host in hosts.values()}
    finally:
        balancer.kill()
        for host in hosts.values():
            if host.process is not None and host.process.poll() is None:
                host.process.kill()
    print(json.dumps(found))


def _serves(balancer: subprocess.Popen[bytes]) -> bool:
    assert balancer.poll() is None, "HAProxy has ended"
    try:
        return httpx.get(f"http://{BALANCER}:8080/", timeout=DEADLINE).status_code == 200
    except httpx.TransportError:
        return False


def _is_out(host: Host, load: Load) -> bool:
    """Whether a whole round is answered without a host."""
    before = load.answered[f"web {host.address}"], load.answered[f"model {host.address}"]
    load.round()
    return before == (load.answered[f"web {host.address}"], load.answered[f"model {host.address}"])


if __name__ == "__main__":
    main()
