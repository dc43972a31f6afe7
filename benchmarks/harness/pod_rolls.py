"""A kubelet and a kube-proxy in small: exported pods, rolled as their Deployment would be, while
clients ask whoever is an endpoint. Endpoints learn of a deletion late, as in a cluster.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from harness.proc import free_port

_START_SECONDS = 120.0
_ANSWER_SECONDS = 60.0
_PAUSE_SECONDS = 0.02
_POLL_SECONDS = 0.05

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class PodTemplate:
    """What an exported Deployment says of its pods, and the configuration that they mount."""

    config: str
    code: Path
    port: int
    metrics: int
    readiness: str
    pre_stop: float
    grace: float

    @classmethod
    def exported(cls, sample: Path) -> PodTemplate:
        """Returns the template that `servd export kubernetes` writes for a sample."""
        command = [sys.executable, "-m", "servd", "export", "kubernetes", "-c", "servd.toml"]
        done = subprocess.run(
            [*command, "--image", "app:1"], cwd=sample, capture_output=True, text=True, check=True
        )
        objects = {one["kind"]: one for one in YAML(typ="safe", pure=True).load_all(done.stdout)}
        spec = objects["Deployment"]["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        ports = {each["name"]: each["containerPort"] for each in container["ports"]}
        return cls(
            config=objects["ConfigMap"]["data"]["servd.toml"],
            code=sample,
            port=ports["http"],
            metrics=ports["metrics"],
            readiness=container["readinessProbe"]["httpGet"]["path"],
            pre_stop=container["lifecycle"]["preStop"]["sleep"]["seconds"],
            grace=spec["terminationGracePeriodSeconds"],
        )


@dataclass(slots=True)
class RolledPod:
    """One pod: servd with the exported configuration, on ports of its own."""

    template: PodTemplate
    port: int = 0
    metrics: int = 0
    process: asyncio.subprocess.Process | None = None
    folder: str = ""

    async def start(self) -> RolledPod:
        """Returns when the readiness probe succeeds. Raises RuntimeError if it does not."""
        self.folder = tempfile.mkdtemp(prefix="pod-")
        self.port, self.metrics = free_port(), free_port()
        text = self.template.config
        for old, new in (
            ('"/app"', f'"{self.template.code}"'),
            ('"/run/servd"', f'"{self.folder}/run"'),
            (f'":{self.template.port}"', f'"127.0.0.1:{self.port}"'),
            (f'":{self.template.metrics}"', f'"127.0.0.1:{self.metrics}"'),
        ):
            assert old in text, old
            text = text.replace(old, new)
        config = Path(self.folder, "servd.toml")
        config.write_text(text)
        self.process = await asyncio.create_subprocess_exec(
            "sh", "-c", 'exec "$@" > log 2>&1', "sh",
            sys.executable, "-m", "servd", "--config", str(config),
            cwd=self.folder, env={"PATH": os.environ["PATH"]},
        )  # fmt: skip
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START_SECONDS):
                while self.process.returncode is None:
                    if await _status(self.metrics, self.template.readiness) == 200:
                        return self
                    await asyncio.sleep(_POLL_SECONDS)
        said = Path(self.folder, "log").read_text()[-2000:]
        await self.stop(0)
        raise RuntimeError(said)

    async def stop(self, pre_stop: float) -> bool:
        """Ends it as a kubelet does; returns whether it ended by itself."""
        assert self.process is not None
        await asyncio.sleep(pre_stop)
        with contextlib.suppress(ProcessLookupError):  # it has ended
            self.process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.process.wait(), self.template.grace - pre_stop)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
            return False
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
        return True


@dataclass(slots=True)
class RolledDeployment:
    """Two pods and clients of them. `lag`: seconds until endpoints know that a pod ends."""

    template: PodTemplate
    lag: float
    pre_stop: float
    endpoints: list[RolledPod] = field(default_factory=list)
    answers: collections.Counter[str] = field(default_factory=collections.Counter)
    errors: list[str] = field(default_factory=list)
    killed: int = 0
    rolls: int = 0
    over: bool = False

    @property
    def lost(self) -> int:
        """Requests without a good answer."""
        return self.answers.total() - self.answers["200"]

    async def run(self, enough: Callable[[RolledDeployment], bool]) -> RolledDeployment:
        """Rolls one pod after the other until `enough`; clients ask all the time."""
        pods: collections.deque[RolledPod] = collections.deque()
        clients: list[asyncio.Task[None]] = []
        try:
            for _ in range(2):
                pods.append(await RolledPod(self.template).start())
            self.endpoints += pods
            clients += [asyncio.create_task(self._client(kept=n % 2 == 0)) for n in range(4)]
            while not enough(self):
                pods.append(await RolledPod(self.template).start())
                self.endpoints.append(pods[-1])
                await self._delete(pods.popleft())
                self.rolls += 1
        finally:
            self.over = True
            await asyncio.gather(*clients)
            await asyncio.gather(*(pod.stop(0) for pod in pods))
        return self

    async def _delete(self, pod: RolledPod) -> None:
        async def learn() -> None:
            await asyncio.sleep(self.lag)
            self.endpoints.remove(pod)

        ended, _ = await asyncio.gather(pod.stop(self.pre_stop), learn())
        self.killed += not ended

    async def _client(self, *, kept: bool) -> None:
        """Asks the endpoints in turn; `kept` reuses a connection for the same one."""
        connection: tuple[RolledPod, Pair] | None = None
        for number in itertools.count():
            if self.over:
                break
            pod = self.endpoints[number // (8 if kept else 1) % len(self.endpoints)]
            if connection is not None and connection[0] is not pod:
                connection[1][1].close()
                connection = None
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    pair = connection[1] if connection else await _connect(pod.port)
                    status, closes = await _ask(pair, "/", kept=kept)
                self.answers[str(status)] += 1
                connection = (pod, pair) if kept and not closes else None
                if connection is None:
                    pair[1].close()
            except (OSError, EOFError, ValueError, TimeoutError) as error:
                self.answers[type(error).__name__] += 1
                self.errors.append(repr(error))
                connection = None
            await asyncio.sleep(_PAUSE_SECONDS)
        if connection is not None:
            connection[1][1].close()


async def _connect(port: int) -> Pair:
    return await asyncio.open_connection("127.0.0.1", port)


async def _ask(pair: Pair, path: str, *, kept: bool) -> tuple[int, bool]:
    """Returns the status of an answer, and whether the connection closes. Raises OSError, EOFError
    or ValueError when there is none.
    """
    reader, writer = pair
    close = "" if kept else "connection: close\r\n"
    writer.write(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{close}\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
    fields: dict[str, Any] = dict(line.split(": ", 1) for line in head[1:] if line)
    await reader.readexactly(int(fields.get("content-length", 0)))
    return int(head[0].split()[1]), fields.get("connection") == "close"


async def _status(port: int, path: str) -> int:
    with contextlib.suppress(OSError, EOFError, ValueError):
        pair = await _connect(port)
        try:
            return (await _ask(pair, path, kept=False))[0]
        finally:
            pair[1].close()
    return 0
