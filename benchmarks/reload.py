"""Requests lost by reloads: servd, and beside it what people use today.

    python benchmarks/reload.py [--reloads 50] [--peers VENV] [--json FILE]

A steady load (200 requests a second, half on new connections, half on kept ones, slow requests
always in flight) by the client of `tests/support/strict_client.py`, which never retries and counts
what is refused, reset, cut short, late or a 5xx as lost; it must lose nothing without a reload (the
first row). `--peers` is a virtual environment with gunicorn, uvicorn-worker, granian, circus and
uvicorn[standard]; what is not in it is left out. They get five HUPs, each after the workers of the
one before have been replaced, as servd does in the second row.

At the end, how long a reload takes that changes one of 100 services, beside one of 2.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import psutil
import trustme

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from harness.proc import free_port
from harness.servers import Place, Setting, circus

from support.apps import CALLER
from support.strict_client import StrictClient

APP = """
    import asyncio, os, time

    time.sleep(0.3)  # what an app imports

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        if scope["path"] == "/slow":
            await asyncio.sleep(2)
        body = str(os.getpid()).encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
"""
QUIET = "[defaults]\nlog.access = false\n[daemon]\nwatch = false\nlog.level = 'warning'\n"


@dataclass
class Row:
    """What became of one contender under load."""

    contender: str
    reloads: int
    answered: int
    lost: int
    slowest_s: float
    seconds: float
    why: list[str]


class Servd:
    """A daemon with a configuration that can be replaced."""

    def __init__(self, folder: Path, config: Callable[[int], str]) -> None:
        self.folder = folder
        self.config = config
        self.count = 0
        for name, text in (("main.py", APP), ("caller.py", CALLER)):
            (folder / name).write_text(textwrap.dedent(text))
        self.write(0)
        environ = {**os.environ, "SERVD_DAEMON__RUNTIME_DIR": str(folder / "run")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "servd", "--config", "servd.toml"], cwd=folder, env=environ
        )
        self.admin = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(folder / "run" / "admin.sock")),
            base_url="http://servd",
            timeout=120,
        )

    def write(self, value: int) -> None:
        (self.folder / "servd.toml").write_text(QUIET + textwrap.dedent(self.config(value)))

    def wait(self) -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with contextlib.suppress(httpx.TransportError):
                if self.admin.get("/readyz").status_code == 200:
                    return
            time.sleep(0.05)
        raise SystemExit("servd did not get ready")

    def reload(self) -> float:
        """Changes the configuration and reloads; returns the seconds that it took."""
        self.count += 1
        self.write(self.count)
        started = time.monotonic()
        answer = self.admin.post("/v1/reload").json()
        if answer.get("outcome") != "applied":
            raise SystemExit(f"servd did not reload: {answer}")
        return time.monotonic() - started

    def upgrade(self) -> None:
        """Replaces the daemon itself."""
        answer = self.admin.post("/v1/upgrade").json()
        if answer.get("outcome") != "replaced":
            raise SystemExit(f"servd was not replaced: {answer}")
        self.wait()

    def close(self) -> None:
        daemon = psutil.Process(self.admin.get("/v1/status").json()["pid"])
        self.admin.close()
        daemon.terminate()
        daemon.wait()
        self.process.wait()


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sd", dir="/tmp", ignore_cleanup_errors=True) as path:
        yield Path(path)


@contextlib.contextmanager
def servd(
    config: Callable[[int], str], prepare: Callable[[Path], None] | None = None
) -> Iterator[Servd]:
    with folder() as path:
        if prepare is not None:
            prepare(path)
        daemon = Servd(path, config)
        try:
            daemon.wait()
            yield daemon
        finally:
            daemon.close()


async def under_load(
    name: str, client: StrictClient, times: int, once: Callable[[], Awaitable[None]]
) -> Row:
    started = time.monotonic()

    async def work() -> None:
        for _ in range(times):
            await once()

    tally = await client.during(work)
    return Row(
        contender=name,
        reloads=times,
        answered=tally.answered,
        lost=len(tally.lost),
        slowest_s=round(tally.slowest, 2),
        seconds=round(time.monotonic() - started, 1),
        why=tally.lost[:20],
    )


async def quiet(seconds: float) -> None:
    await asyncio.sleep(seconds)


def servd_rows(reloads: int) -> Iterator[Row]:
    """servd's own scenarios, the first beside the same load without a reload."""

    def plain(port: int, workers: int) -> Callable[[int], str]:
        return lambda value: (
            f"""
            [services.web]
            app = "main:app"
            listen = "127.0.0.1:{port}"
            workers = {workers}
            env = {{ V = "{value}" }}
        """
        )

    def run(name: str, times: int, daemon: Servd, client: StrictClient) -> Row:
        async def once() -> None:
            await asyncio.to_thread(daemon.reload)

        return asyncio.run(under_load(name, client, times, once))

    port = free_port()
    with servd(plain(port, 2)) as daemon:
        idle = under_load("servd, 2 workers", StrictClient("127.0.0.1", port), 1, lambda: quiet(8))
        row = asyncio.run(idle)
        row.reloads = 0
        yield row
        yield run("servd, 2 workers", 5, daemon, StrictClient("127.0.0.1", port))
    port = free_port()
    with servd(plain(port, 4)) as daemon:
        yield run("servd, 4 workers", reloads, daemon, StrictClient("127.0.0.1", port))
    port = free_port()
    with servd(plain(port, 4)) as daemon:
        client = StrictClient("127.0.0.1", port)

        async def upgrade() -> None:
            await asyncio.to_thread(daemon.upgrade)

        yield asyncio.run(under_load("servd, itself replaced", client, 10, upgrade))
    port = free_port()

    def two_levels(value: int) -> str:
        return f"""
            [services.web]
            app = "caller:app"
            listen = "127.0.0.1:{port}"
            workers = 2
            depends_on = ["backend"]
            [services.backend]
            app = "main:app"
            workers = 2
            env = {{ V = "{value}" }}
        """

    with servd(two_levels) as daemon:
        yield run("servd, a dependency rolls", reloads, daemon, StrictClient("127.0.0.1", port))
    authority = trustme.CA()
    port = free_port()

    def certificate(path: Path) -> None:
        issued = authority.issue_cert("localhost")
        issued.private_key_pem.write_to_path(str(path / "key.pem"))
        issued.cert_chain_pems[0].write_to_path(str(path / "cert.pem"))

    def secured(value: int) -> str:
        table = '\ntls = { certfile = "cert.pem", keyfile = "key.pem" }\n'
        return textwrap.dedent(plain(port, 4)(value)) + table

    with servd(secured, certificate) as daemon:
        import ssl

        context = ssl.create_default_context()
        authority.configure_trust(context)
        client = StrictClient("127.0.0.1", port, context)
        yield run("servd, 4 workers, TLS", reloads, daemon, client)


@dataclass(frozen=True)
class Peer:
    """Another server: its command, what makes it reload, and how workers are told apart."""

    name: str
    program: str
    command: Callable[[Path, Path, int], list[str]]
    reload: Callable[[Path, Path, subprocess.Popen[bytes]], None]


def hup(_: Path, __: Path, process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGHUP)


def circus_reload(venv: Path, path: Path, _: subprocess.Popen[bytes]) -> None:
    endpoint = f"ipc://{path}/circus"
    subprocess.run(
        [venv / "bin" / "circusctl", "--endpoint", endpoint, "reload", "web"],
        stdout=subprocess.DEVNULL,
        check=False,
    )


def circus_command(venv: Path, path: Path, port: int) -> list[str]:
    return circus(venv.absolute() / "bin", Setting(APP, workers=2), Place(path, port))


PEERS = [
    Peer(
        "uvicorn --workers 2",
        "uvicorn",
        lambda venv, _, port: [
            str(venv / "bin" / "uvicorn"), "main:app", "--port", str(port), "--workers", "2",
            "--no-access-log", "--log-level", "critical",
        ],
        hup,
    ),
    Peer(
        "gunicorn, 2 uvicorn workers",
        "gunicorn",
        lambda venv, _, port: [
            str(venv / "bin" / "gunicorn"), "main:app", "-b", f"127.0.0.1:{port}", "-w", "2",
            "-k", "uvicorn_worker.UvicornWorker", "--log-level", "critical",
        ],
        hup,
    ),
    Peer(
        "granian, 2 workers",
        "granian",
        lambda venv, _, port: [
            str(venv / "bin" / "granian"), "--interface", "asgi", "--port", str(port),
            "--workers", "2", "--no-log", "main:app",
        ],
        hup,
    ),
    Peer("circusd, 2 uvicorn processes", "circusd", circus_command, circus_reload),
]  # fmt: skip


def peer_rows(venv: Path, times: int = 5) -> Iterator[Row]:
    for peer in PEERS:
        if not (venv / "bin" / peer.program).exists():
            continue
        with folder() as path:
            (path / "main.py").write_text(textwrap.dedent(APP))
            port = free_port()
            process = subprocess.Popen(
                peer.command(venv, path, port),
                cwd=path,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                asyncio.run(first_answer(port))
                yield asyncio.run(one_peer(peer, venv, path, process, port, times))
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


async def one_peer(
    peer: Peer, venv: Path, path: Path, process: subprocess.Popen[bytes], port: int, times: int
) -> Row:
    async def once() -> None:
        before = workers(process)
        await asyncio.to_thread(peer.reload, venv, path, process)
        end = time.monotonic() + 20
        replaced = False
        while not replaced and time.monotonic() < end:  # helpers of a server's own may stay
            await asyncio.sleep(0.05)
            now = workers(process)
            replaced = len(before - now) >= 2 and len(now - before) >= 2
        await asyncio.sleep(0.3)

    return await under_load(peer.name, StrictClient("127.0.0.1", port), times, once)


def workers(process: subprocess.Popen[bytes]) -> set[int]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return {child.pid for child in psutil.Process(process.pid).children(recursive=True)}
    return set()


async def first_answer(port: int) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        client = StrictClient("127.0.0.1", port)
        await client.ask("/", kept=False)
        if client.tally.answered:
            return
        await asyncio.sleep(0.1)
    raise SystemExit(f"nobody answers on port {port}")


def many_services(count: int, rounds: int = 9) -> tuple[float, int]:
    """Median seconds of a reload that changes one of `count` services, and how many other
    processes it touched.
    """

    def config(value: int) -> str:
        others = "".join(
            f'[services.s{number}]\ncommand = ["sleep", "100000"]\n' for number in range(1, count)
        )
        return f'[services.s0]\ncommand = ["sleep", "100000"]\nenv = {{ V = "{value}" }}\n{others}'

    with servd(config) as daemon:
        before = pids(daemon)
        seconds = [daemon.reload() for _ in range(rounds)]
        after = pids(daemon)
        touched = sum(before[name] != after[name] for name in before if name != "s0")
        assert before["s0"] != after["s0"]
        return statistics.median(seconds), touched


def pids(daemon: Servd) -> dict[str, list[int]]:
    services = daemon.admin.get("/v1/status").json()["services"]
    return {s["name"]: [process["pid"] for process in s["processes"]] for s in services}


def show(row: Row) -> None:
    print(
        f"{row.contender:<30} {row.reloads:>7} {row.answered:>9} {row.lost:>6}"
        f" {row.slowest_s:>9.2f} {row.seconds:>8.1f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--reloads", type=int, default=50)
    parser.add_argument("--peers", type=Path, help="virtual environment with the peers")
    parser.add_argument("--json", type=Path, help="where the rows go")
    options = parser.parse_args()
    rows: list[Row] = []
    print(f"{'contender':<30} reloads  answered   lost slowest s  seconds")
    for row in servd_rows(options.reloads):
        rows.append(row)
        show(row)
    for row in peer_rows(options.peers) if options.peers else ():
        rows.append(row)
        show(row)
    two, _ = many_services(2)
    hundred, touched = many_services(100)
    print(
        f"\na reload that changes one service: of 2 {two * 1000:.0f} ms, of 100"
        f" {hundred * 1000:.0f} ms ({hundred / two:.2f} times), {touched} others touched"
    )
    if options.json:
        figures = {"of_2_s": two, "of_100_s": hundred, "touched": touched}
        options.json.write_text(
            json.dumps({"rows": [asdict(r) for r in rows], **figures}, indent=1)
        )
    for row in rows:
        for why in row.why if row.contender.startswith("servd") else ():
            print(f"{row.contender}: {why}")
    lost = sum(row.lost for row in rows if row.contender.startswith("servd"))
    raise SystemExit(1 if lost or touched else 0)


if __name__ == "__main__":
    main()
