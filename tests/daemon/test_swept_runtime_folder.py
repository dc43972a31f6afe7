"""The runtime folder, or part of it, is removed while the daemon runs."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from pathlib import Path

import httpx

from support.harness import Servd, ServdProcess, wait_until

APP = """
import os
from fastapi import FastAPI
app = FastAPI()

@app.get("/")
def root():
    return os.getpid()
"""
CONFIG = """
[daemon]
watch = false
[admin]
metrics = "unix:{folder}/metrics.sock"
[services.web]
app = "main:app"
listen = ["127.0.0.1:0", "unix:{folder}/web.sock"]
[services.inner]
app = "main:app"
[services.front]
app = "main:app"
depends_on = ["inner"]
[services.db]
command = ["sleep", "1000"]
"""


def over(path: Path, route: str = "/") -> httpx.Response | None:
    """The answer of whoever listens at `path`; None if nobody does."""
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(str(path)) != 0:
            return None
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
        return client.get(f"http://x{route}")


def answers(path: Path, route: str = "/") -> None:
    wait_until(lambda: over(path, route), f"somebody answers at {path}")


def mended(daemon: ServdProcess, number: int) -> list[str]:
    """What was missing, the time before this one included."""
    found = wait_until(
        lambda: daemon.find("runtime folder repaired")[number - 1 :], "the folder is mended"
    )
    missing: list[str] = found[0]["missing"]
    return missing


def test_what_is_removed_is_made_again_and_said(servd: Servd) -> None:
    short = servd._short
    daemon = servd(CONFIG.format(folder=short), main_py=APP).ready()
    run = daemon.runtime
    db, web = daemon.pids("db"), daemon.pids("web")

    gone = run.rename(short / "gone")  # at once: the daemon makes what is missing again
    shutil.rmtree(gone)
    assert str(run) in mended(daemon, 1)
    answers(run / "admin.sock", "/livez")
    answers(run / "s" / "inner.sock")
    daemon.wait_for("unix sockets removed")
    assert daemon.find("unix sockets removed")[0]["services"] == ["front", "inner"]
    daemon.wait_for("reload finished", outcome="applied")
    assert daemon.pids("db") == db  # it has no socket
    assert daemon.pids("web") == web  # its own is elsewhere
    os.kill(db[0], signal.SIGKILL)
    wait_until(lambda: daemon.pids("db") not in ([], db), "db has been restarted")

    (short / "web.sock").unlink()
    (short / "metrics.sock").unlink()
    answers(short / "metrics.sock", "/livez")
    answers(short / "web.sock")
    assert daemon.get("web").status_code == 200
    wait_until(lambda: daemon.service("web")["state"] == "ready", "web is ready again")
    assert daemon.pids("web") != web

    (run / "private" / "servd.pid").unlink()
    (run / "admin.sock").unlink()
    answers(run / "admin.sock", "/livez")
    notify = next((run / "n").iterdir())
    notify.unlink()
    wait_until(notify.exists, "a notification socket alone is made again")
    assert daemon.stop() == 0
    assert not (short / "web.sock").exists()


def test_a_worker_is_restarted_while_the_folder_cannot_be_made(servd: Servd) -> None:
    parent = servd._short / "session"
    daemon = servd(
        '[services.db]\ncommand = ["sleep", "1000"]\n',
        environ={"SERVD_DAEMON__RUNTIME_DIR": str(parent / "run")},
    ).ready()
    daemon.runtime = parent / "run"
    (db,) = daemon.pids("db")
    shutil.rmtree(parent)
    parent.touch()
    daemon.wait_for("cannot repair runtime folder")
    os.kill(db, signal.SIGKILL)
    daemon.wait_for("worker exited", service="db")
    wait_until(lambda: len(daemon.find("worker ready")) == 2, "db has been restarted")
    parent.unlink()
    answers(daemon.runtime / "admin.sock", "/livez")
    assert daemon.stop() == 0


def test_a_refused_second_daemon_harms_nothing(servd: Servd) -> None:
    first = servd('[services.db]\ncommand = ["sleep", "1000"]\n').ready()
    for gone in (first.runtime / "private" / "servd.pid", None):
        if gone is not None:
            gone.unlink()
        second = servd.run(
            "--config", "servd.toml", environ={"SERVD_DAEMON__RUNTIME_DIR": str(first.runtime)}
        )
        assert second.wait() == 1
        assert "another servd (pid " in second.output
        for name in ("s", "n", "m", "b", "private", "admin.sock"):
            assert (first.runtime / name).exists()
        assert list((first.runtime / "n").iterdir())
    assert first.stop() == 0


def test_what_stands_in_the_place_of_a_socket_is_left_alone(servd: Servd) -> None:
    path = servd._short / "web.sock"
    daemon = servd(
        f'[services.web]\napp = "main:app"\nlisten = "unix:{path}"\n', main_py=APP
    ).ready()
    (web,) = daemon.pids("web")
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        failed = daemon.wait_for("reload failed")
        assert "the address is in use" in failed["error"]
        assert daemon.pids("web") == [web]
    path.unlink()
    assert daemon.reload(roll=True)["outcome"] == "applied"  # it need not wait for the next try
    answers(path)
    assert daemon.stop() == 0
