"""The disk or the pipe that the log goes to is full: what serves goes on, what is lost is counted
and said, and all is well once there is room.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.faults import idling, limited
from support.harness import Servd, ServdProcess, wait_until

needs_mounts = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare"
)
TALKER = """
    import logging

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        if scope["path"] == "/talk":
            for number in range(int(scope["query_string"])):
                logging.getLogger("app").warning("talk %d", number)
        await send({"type": "http.response.start", "status": 200,
                    "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
"""
WEB = """
    [services.web]
    app = "main:app"
    listen = "127.0.0.1:0"
"""


def on_a_small_disk(folder: Path, mounted: Path, size: str) -> str:
    """An interpreter for a daemon that alone sees a tiny file system at `mounted`."""
    script = folder / "python-on-a-small-disk"
    script.write_text(
        "#!/bin/sh\n"
        f"exec unshare --mount sh -c 'mount -t tmpfs -o size={size} tmpfs {mounted}"
        f' && exec "$0" "$@"\' {sys.executable} "$@"\n'
    )
    script.chmod(0o755)
    return str(script)


@contextlib.contextmanager
def full(folder: Path) -> Iterator[None]:
    """Fills the file system of a folder to its last byte."""
    filler = folder / "filler"
    with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(512))
    yield
    filler.unlink()


def lines_of(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The events of a log, and the lines that are none."""
    events, torn = [], []
    for line in path.read_text().splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:
            torn.append(line)
    return events, torn


@pytest.mark.parametrize("kind", ["a limit", pytest.param("a small disk", marks=needs_mounts)])
def test_lines_that_a_full_disk_does_not_take_are_counted_and_said(servd: Servd, kind: str) -> None:
    logs = servd.folder / "logs"
    logs.mkdir()
    servd.write(servd_toml=WEB, main_py=TALKER)
    small = kind == "a small disk"
    python = on_a_small_disk(servd.folder, logs, "256k") if small else sys.executable
    where = {"SERVD_DAEMON__LOG__FILE": str(logs / "servd.log")}
    daemon = servd.run("--config", "servd.toml", environ=where, interpreter=python)
    seen = Path(f"/proc/{daemon.pid}/root{logs}") if small else logs
    daemon.log_path = seen / "servd.log"
    wait_until(daemon.log_path.exists, "there is a log")
    daemon.ready()
    error = "No space left on device" if small else "File too large"
    room = limited(daemon.pid, resource.RLIMIT_FSIZE, daemon.log_path.stat().st_size + 1000)
    daemon.loses_lines = True
    with full(seen) if small else room, daemon.follow("/v1/events?follow=true") as told:
        for _ in range(3):
            assert daemon.get("web", "/talk?300").status_code == 200
            assert daemon.reload()["outcome"] == "unchanged"
        wait_until(lambda: (daemon.metric("servd_log_lines_dropped_total") or 0) > 800, "counted")
        trouble = next(e["data"] for e in told if e["data"]["event"] == "cannot write log")
        assert (trouble["error"], trouble["file"]) == (error, str(logs / "servd.log"))
    daemon.get("web", "/later")
    daemon.wait_for("request", **{"url.path": "/later"})
    lost = daemon.wait_for("log lines lost", reason=error)
    assert lost["lines"] == lost["total"] == daemon.metric("servd_log_lines_dropped_total")
    events, torn = lines_of(daemon.log_path)
    missing = 900 - sum(str(event["event"]).startswith("talk ") for event in events)
    assert missing <= lost["lines"] <= missing + 30
    assert len(torn) <= 1, "a line that is cut off spoils no other"
    daemon.process.terminate()
    assert daemon.wait() == 0


@needs_mounts
def test_a_full_runtime_folder_costs_no_worker_and_is_written_to_later(
    servd: Servd,
) -> None:
    runtime = servd._short / "0"
    runtime.mkdir(mode=0o700)
    counting = """
        import os
        from prometheus_client import Counter

        asked = Counter("asked", "Requests.")

        async def app(scope, receive, send):
            assert scope["type"] == "http"
            asked.inc()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
    """
    quiet = """
        async def app(scope, receive, send):
            assert scope["type"] == "http"
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"quiet"})
    """
    another = WEB.replace("web", "quiet").replace("main:", "quiet:")
    servd.write(
        servd_toml=WEB + "restart.backoff_max = 1\n" + another, main_py=counting, quiet_py=quiet
    )
    python = on_a_small_disk(servd.folder, runtime, "4m")
    daemon = servd.run("--config", "servd.toml", interpreter=python)
    seen = daemon.runtime = Path(f"/proc/{daemon.pid}/root{runtime}")
    daemon.ready()
    for _ in range(5):
        (pid,) = daemon.pids("web")
        assert daemon.get("web").text == str(pid)
    assert daemon.metric("asked_total", service="web") == 5
    with full(seen):
        os.kill(pid, signal.SIGKILL)
        daemon.wait_for("cannot write worker list", error="No space left on device")
        # what the app counts is in memory that is mapped from there
        reason = "was killed by SIGBUS: the disk of the runtime folder is full"
        daemon.wait_for("worker exited", reason=reason)
        assert daemon.metric("servd_workers", service="web", state="ready") == 0
        daemon.wait_for("cannot read app metrics", service="web")
        assert daemon.get("quiet").text == "quiet"
        assert daemon.reload()["outcome"] == "unchanged"
    wait_until(lambda: daemon.service("web")["state"] == "ready", "it is back")
    (fresh,) = daemon.pids("web")
    roster = seen / "private" / f"workers-{daemon.pid}.json"
    here = {fresh, *daemon.pids("quiet")}
    wait_until(lambda: {p for p, _ in json.loads(roster.read_text())} == here, "the list")
    assert daemon.get("web").text == str(fresh)
    assert daemon.metric("asked_total", service="web") == 6, "what the dead counted is not lost"
    daemon.process.terminate()
    assert daemon.wait() == 0


class Pipe:
    """A pipe that a daemon writes its log to; while it is read, what comes goes to a file."""

    def __init__(self, servd: Servd, *, blocking: bool) -> None:
        self.path = servd.folder / "pipe"
        os.mkfifo(self.path)
        self._reading = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        self._reads = threading.Event()
        self._over = False
        flags = "os.O_WRONLY" if blocking else "os.O_WRONLY | os.O_NONBLOCK"
        code = (
            f'import os, sys; out = os.open("{self.path}", {flags}); os.dup2(out, 1);'
            " os.dup2(out, 2); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
        )
        script = servd.folder / "python-with-a-pipe"
        script.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{code}' \"$@\"\n")
        script.chmod(0o755)
        servd.write(servd_toml=WEB, main_py=TALKER)
        self.daemon = servd.run("--config", "servd.toml", interpreter=str(script))
        self._thread = threading.Thread(target=self._read)
        self._reads.set()
        self._thread.start()

    def _read(self) -> None:
        with open(self.daemon.log_path, "ab", buffering=0) as copy:
            while not self._over:
                self._reads.wait(0.1)
                if self._reads.is_set():
                    with contextlib.suppress(BlockingIOError):
                        copy.write(os.read(self._reading, 65536))
                    time.sleep(0.001)

    @contextlib.contextmanager
    def unread(self) -> Iterator[None]:
        """Nobody reads meanwhile."""
        self._reads.clear()
        self.daemon.loses_lines = True
        yield
        self._reads.set()

    def close(self) -> None:
        self._over = True
        self._thread.join()
        os.close(self._reading)


@pytest.fixture(params=[True, False], ids=["that blocks", "that does not block"])
def pipe(request: pytest.FixtureRequest, servd: Servd) -> Iterator[Pipe]:
    made = Pipe(servd, blocking=request.param)
    try:
        yield made
    finally:
        made.close()


def talked(daemon: ServdProcess) -> int:
    return daemon.output.count('"event": "talk ')


def test_a_full_pipe_holds_nothing_up_and_what_is_lost_is_said_later(pipe: Pipe) -> None:
    daemon = pipe.daemon.ready()
    with pipe.unread():
        for _ in range(40):  # the worker drops some itself
            assert daemon.get("web", "/talk?2000").status_code == 200
        wait_until(lambda: daemon.metric("servd_log_lines_dropped_total"), "lines are dropped")
        with idling(daemon.pid, acts=0.1):
            until = time.monotonic() + 1.0
            while time.monotonic() < until:
                assert daemon.get("web").status_code == 200
                assert daemon.status()["state"] == "running"
                time.sleep(0.1)
        assert daemon.reload()["outcome"] == "unchanged"
    daemon.get("web", "/later")
    for text in ('"/later"', '"log lines lost"'):
        wait_until(lambda: text in daemon.output, text)  # noqa: B023
    lost = daemon.wait_for("log lines lost")
    dropped = daemon.metric("servd_log_lines_dropped_total")
    assert dropped
    assert 0 < lost["lines"] <= dropped
    assert 24000 - talked(daemon) <= dropped
    assert daemon.stop() == 0


def test_a_log_that_is_moved_off_a_full_pipe_goes_on(pipe: Pipe) -> None:
    daemon = pipe.daemon.ready()
    file = daemon.folder / "servd.log"
    with pipe.unread():
        assert daemon.get("web", "/talk?1000").status_code == 200
        moved = daemon.reload(WEB + f'[daemon]\nlog = {{ file = "{file}" }}\n')
        assert moved["outcome"] == "applied"
        daemon.get("web", "/later")
        wait_until(lambda: '"/later"' in file.read_text(), "the file has it")
        found = talked(daemon) + file.read_text().count('"talk ')
        assert found + 500 >= 1000, "what waited for the pipe is in the file"
        assert daemon.stop() == 0


def test_a_daemon_whose_pipe_is_full_stops_in_time(servd: Servd, pipe: Pipe) -> None:
    daemon = pipe.daemon.ready()
    usual = servd.run("--config", "servd.toml").ready()
    began = time.monotonic()
    assert usual.stop() == 0
    took = time.monotonic() - began
    with pipe.unread():
        assert daemon.get("web", "/talk?3000").status_code == 200
        began = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - began < 8 + took
