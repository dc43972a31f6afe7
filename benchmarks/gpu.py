"""Models on a real GPU: what servd measures of them, and how it starts, replaces and undoes them.

    python benchmarks/gpu.py [--fake] [--markdown FILE]

Needs a GPU of NVIDIA and `pip install nvidia-ml-py`; nothing else: workers take memory through the
CUDA driver. Figures are parts of the memory of GPU 0, as on an H100 of 80 GB. It takes less than
five minutes. `--fake` rehearses it with a GPU that a file describes.

1. A worker that holds a quarter: what `servd status` says of it.
2. Two workers that need 56 % each: `servd check` refuses them.
3. A stranger holds 81 %, and a model needs a quarter: it waits and says for whom; the stranger
   ends: the time until the model is ready.
4. A model that needs 75 % is rolled under load: the strategy that servd chose, what was lost, and
   the longest wait.
5. It is rolled to a version that fails: what was lost, and the time until the old answers again.
6. The engine behind a front is killed: the time until a worker answers again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.gpus import FakeGpus

GIB, MIB = 1 << 30, 1 << 20
HELD_SECONDS = 7.0
"""A process that has held memory for some seconds is an engine."""

SECONDS = 60.0

HOLD = """
import ctypes, json, os, sys

FAKE = os.environ.get("HOLD_FAKE", "")

def hold(size):
    # takes so many bytes of the first GPU that this process may see
    if FAKE:
        gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
        path = os.path.join(FAKE, f"{os.getpid()}.json")
        with open(path + "~", "w") as file:
            json.dump({"gpu": gpu, "memory": size}, file)
        os.replace(path + "~", path)
        return
    cuda = ctypes.CDLL("libcuda.so.1")
    context, pointer = ctypes.c_void_p(), ctypes.c_uint64()
    for name, arguments in (
        ("cuInit", [0]),
        ("cuDevicePrimaryCtxRetain", [ctypes.byref(context), 0]),
        ("cuCtxSetCurrent", [context]),
        ("cuMemAlloc_v2", [ctypes.byref(pointer), ctypes.c_size_t(size)]),
    ):
        if status := getattr(cuda, name)(*arguments):
            raise SystemExit(f"{name}: CUDA error {status}")

if __name__ == "__main__":
    hold(int(sys.argv[1]))
    print("holds", flush=True)
    sys.stdin.read()
"""

APP = """
import os, subprocess, sys
from hold import hold

SIZE = int(os.environ["HOLD"])
if os.environ.get("BEHIND"):
    engine = subprocess.Popen([sys.executable, "hold.py", str(SIZE)], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE)
    assert engine.stdout.readline()
else:
    hold(SIZE)
if os.environ.get("FAILS"):
    raise SystemExit("this version fails")

async def app(scope, receive, send):
    assert scope["type"] == "http"
    said = os.environ["VERSION"].encode()
    headers = [(b"content-length", b"%d" % len(said))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": said})
"""


@dataclass
class Daemon:
    """A servd with one service, `web`, in a folder of its own."""

    folder: Path
    environ: dict[str, str]
    port: int
    lines: dict[str, str] = field(default_factory=dict)

    def write(self, memory: int, hold: int, *, env: str = "", more: str = "") -> None:
        """Writes the configuration: a model that needs `memory` and takes `hold` bytes."""
        passed = ", ".join(f'{name} = "{value}"' for name, value in self.environ.items()
                           if name.startswith("HOLD_"))  # fmt: skip
        variables = ", ".join(each for each in (f'HOLD = "{hold}"', env, passed) if each)
        text = f"""
            [daemon]
            runtime_dir = "{self.folder}/run"
            watch = false
            [services.web]
            app = "main:app"
            interface = "asgi3"
            listen = "127.0.0.1:{self.port}"
            gpus = {{ share = 0.5, memory = "{memory // MIB}MiB" }}
            timeouts = {{ startup = "60s", drain = "10s" }}
            env = {{ {variables} }}
            {more}
        """
        (self.folder / "servd.toml").write_text(textwrap.dedent(text))

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs a command of servd."""
        return subprocess.run(
            [sys.executable, "-m", "servd", *words, "--config", "servd.toml"],
            cwd=self.folder, env=self.environ, capture_output=True, text=True, check=False,
        )  # fmt: skip

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """The daemon, started."""
        with (self.folder / "log").open("ab") as log:
            command = [sys.executable, "-m", "servd", "--config", "servd.toml"]
            process = subprocess.Popen(
                command, cwd=self.folder, env=self.environ, stdout=log, stderr=log
            )
        try:
            yield
        finally:
            process.terminate()
            process.wait(SECONDS)

    def service(self) -> dict[str, Any]:
        """What status says of the service."""
        transport = httpx.HTTPTransport(uds=str(self.folder / "run" / "admin.sock"))
        with (
            contextlib.suppress(httpx.HTTPError),
            httpx.Client(transport=transport, base_url="http://servd", timeout=10) as client,
        ):
            return dict(client.get("/v1/status").json()["services"][0])
        return {}

    def answer(self) -> str:
        """What the service answers; "" for nothing."""
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"http://127.0.0.1:{self.port}/", timeout=SECONDS).text
        return ""


def until(condition: Callable[[], Any], what: str) -> float:
    """Seconds until a condition holds."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > 2 * SECONDS:
            sys.exit(f"waited in vain: {what}")
        time.sleep(0.02)
    return time.monotonic() - began


@dataclass
class Clients:
    """Two clients that ask without a pause, on new connections."""

    daemon: Daemon
    answers: dict[str, int] = field(default_factory=dict)
    longest: float = 0.0
    over: threading.Event = field(default_factory=threading.Event)

    def ask(self) -> None:
        while not self.over.is_set():
            began = time.monotonic()
            said = self.daemon.answer() or "lost"
            self.longest = max(self.longest, time.monotonic() - began)
            self.answers[said] = self.answers.get(said, 0) + 1

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        threads = [threading.Thread(target=self.ask) for _ in range(2)]
        for each in threads:
            each.start()
        try:
            yield
        finally:
            self.over.set()
            for each in threads:
                each.join()

    def __str__(self) -> str:
        said = ", ".join(f"{count} {name}" for name, count in sorted(self.answers.items()))
        return f"{said}; longest wait {self.longest:.2f} s"


def gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"


def trials(daemon: Daemon, total: int) -> Iterator[tuple[str, str]]:
    """Yields what was tried, and what came of it."""
    quarter, most, stranger = total // 4, int(total * 0.75), int(total * 0.81)

    daemon.write(int(quarter * 1.1), quarter, env='VERSION = "v1"')
    with daemon.running():
        until(daemon.answer, "the first answer")
        until(lambda: _measured(daemon), "a measured worker")
        yield f"a worker that holds {gib(quarter)}", f"status: {gib(_measured(daemon) or 0)}"

    daemon.write(int(total * 0.56), quarter, env='VERSION = "v1"', more="workers = 2")
    refused = daemon.command("check")
    first = (refused.stdout + refused.stderr).strip().splitlines()[0]
    yield "two workers that need 56 %", f"check: exit {refused.returncode}, {first}"

    daemon.write(int(quarter * 1.1), quarter, env='VERSION = "v1"')
    other = subprocess.Popen(
        [sys.executable, "hold.py", str(stranger)], cwd=daemon.folder, env=daemon.environ,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert other.stdout is not None
    other.stdout.readline()
    with daemon.running():
        until(lambda: "held" in str(daemon.service().get("error")), "a reason")
        reason = daemon.service()["error"]
        other.kill()
        other.wait()
        seconds = until(daemon.answer, "an answer")
        yield (
            f"a stranger holds {gib(stranger)}",
            f"{reason}; gone: an answer after {seconds:.2f} s",
        )

    daemon.write(most, most, env='VERSION = "v1"')
    with daemon.running():
        until(daemon.answer, "the first answer")
        daemon.write(most, most, env='VERSION = "v2"')
        plan = daemon.command("plan").stdout.strip().splitlines()
        yield f"the plan for a model of {gib(most)}", plan[0] if plan else "nothing"
        yield "it is rolled", _rolled(daemon, "v2")
        daemon.write(most, most, env='VERSION = "v3", FAILS = "1"')
        yield "it is rolled to a version that fails", _rolled(daemon, "v2")

    daemon.write(most, most, env='VERSION = "v1", BEHIND = "1"')
    with daemon.running():
        until(daemon.answer, "the first answer")
        until(lambda: _measured(daemon), "a measured worker")
        time.sleep(HELD_SECONDS)
        (worker,) = daemon.service()["processes"]
        children = Path(f"/proc/{worker['pid']}/task/{worker['pid']}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
        again = until(lambda: _is_another(daemon, worker["pid"]), "another worker")
        yield "the engine behind a front is killed", f"another worker is ready after {again:.1f} s"


def _measured(daemon: Daemon) -> int | None:
    """Bytes of GPU memory of its only worker; None as long as nobody knows."""
    for process in daemon.service().get("processes", ()):
        for gpu in process.get("gpus", ()):
            return gpu["memory_bytes"] or None
    return None


def _is_another(daemon: Daemon, pid: int) -> bool:
    found = daemon.service().get("processes", ())
    return any(each["pid"] != pid and each["state"] == "ready" for each in found)


def _rolled(daemon: Daemon, expected: str) -> str:
    """Reloads under load; returns what came of it."""
    clients = Clients(daemon)
    with clients.asking():
        until(lambda: clients.answers, "clients")
        began = time.monotonic()
        done = daemon.command("reload")
        until(lambda: daemon.answer() == expected, expected)
        seconds = time.monotonic() - began
    outcome = "applied" if done.returncode == 0 else "undone"
    return f"{outcome}, {expected} answers after {seconds:.1f} s; {clients}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--fake", action="store_true", help="rehearse it without a GPU")
    parser.add_argument("--markdown", type=Path, help="write the table to this file")
    options = parser.parse_args()
    began, lines = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="sb", dir="/tmp") as name:
        folder = Path(name)
        (folder / "hold.py").write_text(HOLD)
        (folder / "main.py").write_text(APP)
        environ = dict(os.environ)
        if options.fake:
            fake = FakeGpus(folder / "gpus.json")
            environ |= {**fake.environ, "HOLD_FAKE": str(fake.folder)}
        daemon = Daemon(folder, environ, _free_port())
        daemon.write(GIB, GIB)
        gpus = json.loads(daemon.command("gpus", "--json").stdout or "{}").get("gpus")
        if not gpus:
            sys.exit("no GPU here: --fake rehearses it")
        print(f"{gpus[0]['name']}, {gib(gpus[0]['memory_bytes'])}", flush=True)
        for what, came in trials(daemon, gpus[0]["memory_bytes"]):
            lines.append(f"| {what} | {came} |")
            print(lines[-1], flush=True)
    print(f"{time.monotonic() - began:.0f} s")
    if options.markdown is not None:
        options.markdown.write_text("\n".join(["| tried | came of it |", "|---|---|", *lines, ""]))


def _free_port() -> int:
    from harness.proc import free_port

    return free_port()


if __name__ == "__main__":
    main()
