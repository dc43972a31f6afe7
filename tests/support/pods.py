"""Exported pods on this machine: each in a network of its own, behind a bridge, with the names of
the Services in its /etc/hosts, the folders of the volumes, and the user of its container.

Run as a program in namespaces of its own (`unshare -nm`), it starts the pods of a manifest, the
first alone at first, and prints what one of them answers before and after the others are there.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from support.exports import documents
from support.harness import DEADLINE, wait_until
from support.manifests import Object, container_of, of_kind
from support.networks import add_bridge, add_host, inside

_NETWORK = "10.213.7"
_VOLUMES = """
mount --make-rprivate /
mount --bind "$1" /etc/hosts
mount -t tmpfs -o mode=0755 none /run
mkdir -m 0777 /run/servd
shift
exec "$@"
"""
"""An emptyDir belongs to root and is open to everybody."""


@dataclass(slots=True)
class Pod:
    """A pod of a Deployment; `folder` is that of its code."""

    deployment: Object
    address: str
    folder: Path
    code: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        return str(self.deployment["metadata"]["name"])

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def prepare(self, config: str) -> None:
        """Makes its network and its files; the code is where it is here, not in /app."""
        add_host(self.name, self.address)
        self.folder.mkdir(parents=True)
        text = re.sub(r'"/app\b', lambda _: f'"{self.code}', config)
        (self.folder / "servd.toml").write_text(text)

    def start(self, hosts: Path) -> None:
        """Starts its container."""
        spec = self.deployment["spec"]["template"]["spec"]
        container = container_of(self.deployment)
        assert container["args"] == ["--config", "/etc/servd/servd.toml"]
        program = [sys.executable, "-m", "servd", "--config", str(self.folder / "servd.toml")]
        user = spec["securityContext"]["runAsUser"]
        as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        look = f"import servd, os; os.listdir({str(self.code)!r})"
        trial = [*as_user, "env", sys.executable, "-c", look]  # env runs it without rights
        if subprocess.run(trial, capture_output=True).returncode == 0:
            program = [*as_user, *program]
        script = ["sh", "-c", _VOLUMES, "sh", str(hosts)]
        self.process = subprocess.Popen(
            inside(self.name, *script, *program),
            cwd=self.code,
            env={"PATH": os.environ["PATH"], **variables(container)},
            stdout=(self.folder / "log").open("wb"),
            stderr=subprocess.STDOUT,
        )

    def wait_until_ready(self) -> None:
        """Waits until its readiness probe says so."""
        try:
            wait_until(self.is_ready, f"{self.name} is ready")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log}") from None

    def is_ready(self) -> bool:
        """What its readiness probe says."""
        probe = container_of(self.deployment)["readinessProbe"]["httpGet"]
        assert self.process is not None
        assert self.process.poll() is None, self.log
        ports = {p["name"]: p["containerPort"] for p in container_of(self.deployment)["ports"]}
        with contextlib.suppress(httpx.TransportError):
            url = f"http://{self.address}:{ports[probe['port']]}{probe['path']}"
            return httpx.get(url, timeout=DEADLINE).status_code == 200
        return False

    def stop(self) -> int:
        """Ends it; returns its exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE)


def variables(container: Object) -> dict[str, str]:
    """The environment of a container: earlier variables are expanded in later ones."""
    found: dict[str, str] = {}
    for each in container.get("env", []):
        text = each["value"]
        found[each["name"]] = re.sub(r"\$\((\w+)\)", lambda match: found[match[1]], text)
    return found


@contextlib.contextmanager
def cluster(objects: list[Object], code: Path, folder: Path) -> Iterator[tuple[list[Pod], Path]]:
    """A pod of each Deployment, not started, and the file with the names of the Services."""
    add_bridge(f"{_NETWORK}.1")
    maps = {
        one["metadata"]["name"]: one["data"]["servd.toml"] for one in of_kind(objects, "ConfigMap")
    }
    pods: list[Pod] = []
    for number, one in enumerate(of_kind(objects, "Deployment"), 10):
        pod = Pod(one, f"{_NETWORK}.{number}", folder / one["metadata"]["name"], code)
        volumes = one["spec"]["template"]["spec"]["volumes"]
        (config,) = (v["configMap"]["name"] for v in volumes if "configMap" in v)
        pod.prepare(maps[config])
        pods.append(pod)
    lines = ["127.0.0.1 localhost"]
    for service in of_kind(objects, "Service"):
        for pod in pods:
            labels = pod.deployment["spec"]["template"]["metadata"]["labels"]
            if service["spec"]["selector"].items() <= labels.items():
                lines.append(f"{pod.address} {service['metadata']['name']}")
    hosts = folder / "hosts"
    hosts.write_text("\n".join(lines) + "\n")
    try:
        yield pods, hosts
    finally:
        for pod in pods:
            if pod.process is not None and pod.process.poll() is None:
                pod.process.kill()


def main() -> None:
    """`MANIFEST CODE FOLDER NAME PATH`: starts the pod NAME alone, then the others, and asks it."""
    manifest, code, folder, first, path = sys.argv[1:]
    objects = documents(Path(manifest).read_text())
    with cluster(objects, Path(code), Path(folder)) as (pods, hosts):
        (asked,) = [pod for pod in pods if pod.name == first]
        (service,) = [s for s in of_kind(objects, "Service") if s["metadata"]["name"] == first]
        url = f"http://{asked.address}:{service['spec']['ports'][0]['port']}{path}"
        asked.start(hosts)
        asked.wait_until_ready()
        alone = httpx.get(url, timeout=DEADLINE)
        for pod in pods:
            if pod is not asked:
                pod.start(hosts)
        for pod in pods:
            pod.wait_until_ready()
        together = httpx.get(url, timeout=DEADLINE)
        statuses = {pod.name: pod.stop() for pod in pods}
        logs = {pod.name: pod.log for pod in pods}
    found: dict[str, Any] = {
        "alone": [alone.status_code, alone.text],
        "together": [together.status_code, together.text],
        "statuses": statuses,
        "logs": logs,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
