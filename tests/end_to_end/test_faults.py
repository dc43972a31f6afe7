"""No more processes, a clock that jumps, a pause of everything, a folder that is gone: what serves
goes on, it is said, and it passes by itself.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from faults import APP, idling, times, without_processes
from harness import Servd, python_for_others, servd_for_others, wait_until

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


def test_where_no_process_can_be_started_it_is_tried_on_and_said(
    unprivileged: tuple[Servd, dict[str, Any]],
) -> None:
    servd, options = unprivileged
    servd.write(servd_toml=TWO_WORKERS, main_py=APP)
    daemon = servd.run("--config", "servd.toml", **options).ready()
    first, second = (daemon.workers("web")[worker] for worker in (0, 1))
    with without_processes(daemon.pid), idling(daemon.pid):
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: times(daemon, "worker died", reason=NO_PROCESS) >= 5, "it is tried")
        assert daemon.get("web").text == str(second)
        daemon.edit(TWO_WORKERS.replace("workers = 2", "workers = 3"))
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
    daemon = servd(config, main_py=APP).ready()
    first, second = daemon.pids("web")
    gone = "servd.toml: no such file or folder"
    if how == "deleted":
        shutil.rmtree(folder)
    else:
        folder.rename(tmp_path / "elsewhere")
    assert daemon.wait_for("reload failed", why="a file changed")["error"] == gone
    daemon.send(signal.SIGHUP)
    assert daemon.wait_for("reload failed", why="SIGHUP")["error"] == gone
    os.kill(first, signal.SIGKILL)
    reason = f"could not be started: No such file or directory ({folder})"
    daemon.wait_for("worker died", reason=reason)
    assert daemon.get("web").text == str(second)
    status = daemon.status()
    assert status["config"]["path"] == str(folder / "servd.toml")
    assert status["last_reload"]["error"] == gone
    assert daemon.reload()["detail"] == gone
    if how == "deleted":
        folder.mkdir()
        servd.write(main_py=APP)
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
