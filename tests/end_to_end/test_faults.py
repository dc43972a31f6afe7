"""No more processes, a clock that jumps, a pause of everything, a folder that is gone: what serves
goes on, it is said, and it passes by itself.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import sysconfig
import textwrap
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from support.apps import PID
from support.faults import idling, without_processes
from support.harness import (
    Servd,
    ServdProcess,
    is_template,
    python_for_others,
    servd_for_others,
    wait_until,
)

TWO_WORKERS = """
    [services.web]
    app = "main:app"
    listen = "127.0.0.1:0"
    workers = 2
    restart = { backoff_max = "300ms", give_up_after = 3, policy = "on-failure" }
"""
NO_PROCESS = "could not be started: Resource temporarily unavailable"


@pytest.fixture
def unprivileged(servd: Servd) -> Iterator[tuple[Servd, dict[str, Any]]]:
    """A maker of daemons with the options that let one run as an ordinary user: root is free of the
    limit on processes.
    """
    if shutil.which("prlimit") is None:
        pytest.skip("needs prlimit")
    if os.geteuid() != 0:
        yield servd, {}
        return
    with python_for_others(sysconfig.get_path("purelib"), "servd.daemon.daemon") as python:
        for maker in servd_for_others("sf"):
            maker.folder.chmod(0o777)
            maker._short.chmod(0o777)
            yield maker, {"interpreter": python, "user": pwd.getpwnam("nobody").pw_uid}


@pytest.mark.parametrize("preload", ["false", "true"])
def test_where_no_process_can_be_started_it_is_tried_on_and_said(
    unprivileged: tuple[Servd, dict[str, Any]], preload: str
) -> None:
    servd, options = unprivileged
    config = TWO_WORKERS.replace("workers = 2", f"workers = 2\npreload = {preload}")
    servd.write(servd_toml=config, main_py=PID)
    daemon = servd.run("--config", "servd.toml", **options).ready()
    first, second = (daemon.workers("web")[worker] for worker in (0, 1))
    daemon.metric("servd_workers", service="web", state="ready")  # what answers is imported now
    templates: list[int] = []

    def others_have_ended() -> bool:
        templates[:] = [process.pid for process in daemon.family() if is_template(process)]
        return len(templates) == (preload == "true")

    wait_until(others_have_ended, "the templates have ended that only wait")
    with contextlib.ExitStack() as without, idling(daemon.pid):
        for pid in (daemon.pid, *templates):
            without.enter_context(without_processes(pid))
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: len(daemon.find("worker exited", reason=NO_PROCESS)) >= 5, "it is tried")
        assert daemon.get("web").text == str(second)
        daemon.edit(config.replace("workers = 2", "workers = 3"))
        daemon.send(signal.SIGHUP)
        failed = daemon.wait_for("reload failed")
        assert failed["outcome"] == "rolled_back"
        assert failed["error"] == f"web: worker 2: {NO_PROCESS}"
        assert daemon.service("web")["state"] == "degraded"
        assert daemon.metric("servd_workers", service="web", state="ready") == 1
    wait_until(lambda: daemon.service("web")["state"] == "ready", "both serve again")
    assert daemon.pids("web")[1] == second
    assert daemon.reload()["outcome"] == "applied"
    assert len(daemon.pids("web")) == 3
    assert len(daemon.events) < 100
    assert "Traceback" not in daemon.output
    assert daemon.stop() == 0


@pytest.mark.parametrize("how", ["moved away", "deleted"])
def test_a_folder_that_is_gone_is_said_and_what_comes_in_its_place_is_applied(
    servd: Servd, tmp_path: Path, how: str
) -> None:
    """The config's folder, in which the daemon and its workers work; paths are relative to it."""
    folder = servd.folder = tmp_path / "app"
    folder.mkdir()
    servd.watching = True
    config = TWO_WORKERS.replace("give_up_after = 3, ", "")
    daemon = servd(config, main_py=PID).ready()
    first, second = daemon.pids("web")
    gone = "servd.toml: no such file or folder"
    if how == "deleted":
        shutil.rmtree(folder)
    else:
        folder.rename(tmp_path / "elsewhere")
    assert daemon.wait_for("reload failed", reason="a file changed")["error"] == gone
    daemon.send(signal.SIGHUP)
    assert daemon.wait_for("reload failed", reason="SIGHUP")["error"] == gone
    os.kill(first, signal.SIGKILL)
    reason = f"could not be started: No such file or directory ({folder})"
    daemon.wait_for("worker exited", reason=reason)
    assert daemon.get("web").text == str(second)
    status = daemon.status()
    assert status["config"]["path"] == str(folder / "servd.toml")
    assert status["last_reload"]["error"] == gone
    assert daemon.reload()["detail"] == gone
    if how == "deleted":
        folder.mkdir()
        servd.write(main_py=PID)
    else:
        (tmp_path / "elsewhere").rename(folder)
    daemon.edit(config + '[services.extra]\ncommand = ["sleep", "1000"]\n')
    daemon.wait_for("worker ready", service="extra")
    wait_until(lambda: daemon.service("web")["state"] == "ready", "both serve again")
    assert daemon.pids("web")[1] == second
    daemon.edit(config)
    wait_until(lambda: len(daemon.status()["services"]) == 1, "it is watched as before")
    assert "Traceback" not in daemon.output
    assert daemon.stop() == 0


SHIM = """
    #define _GNU_SOURCE
    #include <fcntl.h>
    #include <stdlib.h>
    #include <sys/mman.h>
    #include <sys/syscall.h>
    #include <sys/time.h>
    #include <time.h>
    #include <unistd.h>

    static volatile long *offset;

    __attribute__((constructor)) static void begin(void) {
        int file = open(getenv("CLOCK_OFFSET"), O_RDONLY | O_CLOEXEC);
        offset = mmap(0, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
        close(file);
    }

    int clock_gettime(clockid_t clock, struct timespec *now) {
        int result = syscall(SYS_clock_gettime, clock, now);
        if (offset && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
            now->tv_sec += *offset;
        return result;
    }

    int gettimeofday(struct timeval *now, void *zone) {
        struct timespec found;
        int result = clock_gettime(CLOCK_REALTIME, &found);
        now->tv_sec = found.tv_sec;
        now->tv_usec = found.tv_nsec / 1000;
        return result;
    }

    time_t time(time_t *where) {
        struct timespec found;
        clock_gettime(CLOCK_REALTIME, &found);
        if (where)
            *where = found.tv_sec;
        return found.tv_sec;
    }
"""
CLOCK = """
    import time

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        body = str(time.time()).encode()
        await send({"type": "http.response.start", "status": 200,
                    "headers": [(b"content-length", str(len(body)).encode())]})
        await send({"type": "http.response.body", "body": body})
"""
DAY = 86400


class Clock:
    """The clock of processes with this environment."""

    def __init__(self, folder: Path, compiler: str) -> None:
        library, self._offset = folder / "clock.so", folder / "offset"
        (folder / "clock.c").write_text(textwrap.dedent(SHIM))
        command = [compiler, "-shared", "-fPIC", "-o", str(library), str(folder / "clock.c")]
        subprocess.run(command, check=True)
        self.environ = {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(self._offset)}
        self._offset.write_bytes(bytes(8))

    def put(self, seconds: int) -> None:
        """Lets it be so many seconds before the true time."""
        with open(self._offset, "r+b", buffering=0) as file:
            file.write(seconds.to_bytes(8, sys.byteorder, signed=True))


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    return Clock(tmp_path, compiler)


@pytest.mark.parametrize("jump", [DAY, -DAY], ids=["forward", "back"])
def test_a_clock_that_is_set_by_a_day_is_said_and_ends_nothing(
    servd: Servd, clock: Clock, jump: int
) -> None:
    config = """
        [services.web]
        app = "main:app"
        listen = "127.0.0.1:0"
        workers = 2
        watchdog = "2s"
        # two: one may be under way when the worker is killed below
        health = { path = "/", interval = "100ms", failures = 2 }
        restart = { reset_after = "10m", backoff = "100ms" }
        limits = { max_age = "1h" }
        env_passthrough = ["LD_PRELOAD", "CLOCK_OFFSET"]
    """
    daemon = servd(config, main_py=CLOCK, environ=clock.environ).ready()
    before = daemon.pids("web")
    with idling(daemon.pid):
        clock.put(jump)
        assert daemon.wait_for("clock jumped")["seconds"] == pytest.approx(jump, abs=2)
        assert float(daemon.get("web").text) == pytest.approx(time.time() + jump, abs=60)
        last = datetime.fromisoformat(daemon.events[-1]["timestamp"])
        assert abs(last - datetime.now(UTC) - timedelta(seconds=jump)) < timedelta(minutes=1)
        until = time.monotonic() + 4.5
        while time.monotonic() < until:  # over twice the watchdog's time
            assert daemon.status()["services"][0]["state"] == "ready"
            time.sleep(0.1)
        assert daemon.pids("web") == before
        os.kill(before[0], signal.SIGKILL)
        wait_until(lambda: before[0] not in daemon.pids("web"), "it is missed")
        wait_until(lambda: daemon.service("web")["state"] == "ready", "it is replaced")
        rolled = daemon.act("web", "restart")
        assert (rolled["outcome"], rolled["seconds"] < 60) == ("applied", True)
        clock.put(0)
        wait_until(lambda: len(daemon.find("clock jumped")) == 2, "the way back too")
        assert float(daemon.get("web").text) == pytest.approx(time.time(), abs=60)
    assert daemon.stop() == 0
    assert not daemon.find("worker recycle requested")
    assert not daemon.find("worker hung")


def everything_stands_still(daemon: ServdProcess, seconds: float) -> None:
    """As when a machine or a container is paused: nobody has slept longer than the others."""
    pids = [daemon.pid, *(process.pid for process in daemon.family())]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(seconds)  # for which time itself stands still
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


def test_a_pause_of_everything_is_said_and_no_worker_is_blamed(servd: Servd) -> None:
    config = """
        [services.web]
        app = "main:app"
        listen = "127.0.0.1:0"
        watchdog = "2s"
        health = { path = "/slow", interval = "100ms", timeout = "4s", failures = 1 }
        timeouts = { startup = "1m" }
    """
    app = PID.replace("sleep(2)", 'sleep(0.4); print("probed", flush=True)')
    daemon = servd(config, main_py=app).ready()
    (pid,) = daemon.pids("web")
    everything_stands_still(daemon, 6)
    assert daemon.wait_for("servd stalled")["seconds"] >= 2
    probed = len(daemon.lines("probed"))
    while len(daemon.lines("probed")) < probed + 2:  # one of them has begun since
        assert daemon.get("web").text == str(pid)
    assert daemon.pids("web") == [pid]
    assert daemon.stop() == 0
    assert not daemon.find("worker recycle requested")
    assert not daemon.find("worker hung")


def test_a_pause_of_everything_does_not_count_as_time_to_start(servd: Servd) -> None:
    config = """
        [services.web]
        app = "main:app"
        listen = "127.0.0.1:0"
        timeouts = { startup = "8s" }
    """
    slow = "import time\nfor _ in range(10):\n    time.sleep(0.1)\n" + textwrap.dedent(PID)
    daemon = servd(config, main_py=slow)
    daemon.wait_for("worker started")
    everything_stands_still(daemon, 10)
    daemon.ready()
    assert daemon.stop() == 0
    assert not daemon.find("worker exited")
