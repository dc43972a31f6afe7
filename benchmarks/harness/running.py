"""One start of a server: until it answers, who its workers are, and its certain end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from harness import proc
from harness.servers import Place, Server, Setting

READY_SECONDS = 60.0
END_SECONDS = 10.0
"""What a server gets to end after SIGTERM; then it is killed with all that it started."""

RAW = """
import os

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": message["type"] + ".complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    said = b"%8d" % os.getpid()
    headers = [(b"content-length", b"8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": said})
"""
"""An app without a framework that answers with its process."""

FASTAPI = """
import os

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

app = FastAPI()


@app.get("/ping")
async def ping() -> dict[str, str]:
    return {"ping": "pong"}


@app.get("/")
async def process() -> PlainTextResponse:
    return PlainTextResponse(b"%8d" % os.getpid())
"""


class MeasurementError(Exception):
    """A measurement that could not be made; the text stands in its cell."""


@dataclass
class Running:
    """One server that was started; `workers` are the processes that have answered."""

    server: Server
    process: subprocess.Popen[bytes]
    place: Place
    began: float
    workers: set[int] = field(default_factory=set)

    @property
    def port(self) -> int:
        return self.place.port

    def check(self) -> None:
        """Raises MeasurementError where the server has ended."""
        if self.process.poll() is not None:
            raise MeasurementError(f"exited with {self.process.returncode}: {self._last_words()}")

    def first_answer(self) -> float:
        """Seconds from the start until the first answer with 200."""
        return asyncio.run(self._answer()) - self.began

    def all_workers(self, count: int) -> None:
        """Until so many workers have answered."""
        end = time.monotonic() + READY_SECONDS
        while len(self.workers) < count:
            self.check()
            if time.monotonic() > end:
                raise MeasurementError(f"{len(self.workers)} of {count} workers answered")
            self.workers |= asyncio.run(askers(self.port, 4 * count))

    def others(self) -> list[int]:
        """The processes that serve nobody: the supervisor, and helpers of its own."""
        return [pid for pid in proc.tree(self.process.pid) if pid not in self.workers]

    async def _answer(self) -> float:
        end = time.monotonic() + READY_SECONDS
        while time.monotonic() < end:
            with contextlib.suppress(OSError, EOFError, asyncio.TimeoutError, ValueError):
                await ask(self.port, READY_SECONDS)
                return time.monotonic()
            self.check()
            await asyncio.sleep(0.005)
        raise MeasurementError("no answer")

    def _last_words(self) -> str:
        log = self.place.folder / "log"
        lines = log.read_text(errors="replace").split("\n") if log.exists() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


async def ask(port: int, seconds: float) -> int:
    """The process that answers on a new connection.

    Raises OSError, EOFError, TimeoutError, or ValueError for anything but 200.
    """
    async with asyncio.timeout(seconds):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            if head.split(b" ", 2)[1] != b"200":
                raise ValueError(head.split(b"\r\n", 1)[0].decode())
            return int(await reader.readexactly(8))
        finally:
            writer.close()


async def askers(port: int, count: int) -> set[int]:
    """The processes that answer on so many connections at once; what fails is passed over."""
    answers = await asyncio.gather(*(ask(port, 10) for _ in range(count)), return_exceptions=True)
    return {answer for answer in answers if isinstance(answer, int)}


@contextlib.contextmanager
def running(server: Server, setting: Setting) -> Iterator[Running]:
    """The server, started; it and all that it has started end with the context."""
    options = {"prefix": "sb", "dir": "/tmp", "ignore_cleanup_errors": True}
    with tempfile.TemporaryDirectory(**options) as name:  # type: ignore[call-overload]
        place = Place(Path(name), proc.free_port())
        (place.folder / "main.py").write_text(setting.app)
        command = server.command(setting, place)
        target = Path(os.devnull) if setting.access_log else place.folder / "log"
        with target.open("wb") as output:
            began = time.monotonic()
            process = subprocess.Popen(
                command,
                cwd=place.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # an interrupt is for the benchmark, which ends them
            )
        try:
            yield Running(server, process, place, began)
        finally:
            _end(process)


@contextlib.contextmanager
def ready(server: Server, setting: Setting) -> Iterator[Running]:
    """The server, when all its workers have answered."""
    with running(server, setting) as one:
        one.first_answer()
        one.all_workers(setting.workers)
        yield one


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the server, and kills what is left of all that it has started."""
    family = _family(process)
    process.terminate()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        family += _family(process)
    finally:
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):  # or its number is another's by now
                one.kill()
        process.kill()
        process.wait()


def _family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(process.pid).children(recursive=True)
    return []
