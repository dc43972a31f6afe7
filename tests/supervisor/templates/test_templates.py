"""The template that workers of several services are forked from."""

from __future__ import annotations

import contextlib
import os
import signal
import sys

import psutil
import pytest

from servd.supervisor.templates.start import variables_at_start

from support.apps import PID
from support.harness import Servd, ServdProcess, is_template, wait_until

CONFIG = """
    [services.web]
    app = "main:app"
    listen = "127.0.0.1:0"
    workers = 2
"""


def templates_of(daemon: ServdProcess) -> list[psutil.Process]:
    return [process for process in psutil.Process(daemon.pid).children() if is_template(process)]


def test_workers_are_forked_and_show_who_they_are(servd: Servd) -> None:
    daemon = servd(CONFIG, main_py=PID).ready()
    for number, pid in enumerate(daemon.pids("web")):
        worker = psutil.Process(pid)
        assert worker.ppid() == daemon.pid
        assert worker.cmdline()[0] == f"servd: worker {number} of web"
        assert worker.environ()["NOTIFY_SOCKET"].startswith(str(daemon.runtime))


def test_a_worker_with_variables_that_an_interpreter_reads_is_started_anew(servd: Servd) -> None:
    config = CONFIG.replace("workers = 2", 'workers = 1\n    env = { PYTHONHASHSEED = "7" }')
    app = """
        import sys
        async def app(scope, receive, send):
            assert scope["type"] == "http"
            body = str(hash("x")).encode()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body})
    """
    daemon = servd(config, main_py=app).ready()
    (pid,) = daemon.pids("web")
    assert psutil.Process(pid).cmdline()[0] == sys.executable
    first = daemon.get("web").text
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: daemon.pids("web") not in ([], [pid]), "another worker")
    assert daemon.get("web").text == first


def test_an_idle_template_ends_and_another_one_starts_when_a_worker_is_missing(
    servd: Servd,
) -> None:
    daemon = servd(CONFIG, main_py=PID).ready()
    wait_until(lambda: not templates_of(daemon), "the template has ended")
    assert len(kill_and_find_templates(daemon)) == 1
    wait_until(lambda: not templates_of(daemon), "the template has ended")


def test_a_service_of_one_worker_keeps_its_template_which_others_do_without(servd: Servd) -> None:
    one = CONFIG.replace("workers = 2", "workers = 1")
    daemon = servd(one, main_py=PID).ready()
    (template,) = templates_of(daemon)
    assert daemon.reload(CONFIG.replace("[services.web]", "[services.other]"))
    wait_until(lambda: not templates_of(daemon), "nobody needs it")
    assert daemon.reload(one)["outcome"] == "applied"
    (another,) = templates_of(daemon)
    with pytest.raises(psutil.TimeoutExpired):
        another.wait(6)
    assert template.pid != another.pid


def test_a_template_that_was_killed_is_replaced(servd: Servd) -> None:
    daemon = servd(CONFIG, main_py=PID).ready()
    for template in kill_and_find_templates(daemon):
        with contextlib.suppress(psutil.NoSuchProcess):
            template.kill()
            template.wait(60)
    kill_and_find_templates(daemon)
    wait_until(lambda: daemon.service("web")["state"] == "ready", "it is ready")


def kill_and_find_templates(daemon: ServdProcess) -> list[psutil.Process]:
    """Kills a worker; returns the templates that there were until another worker took its place."""
    victim = daemon.pids("web")[0]
    found: dict[int, psutil.Process] = {}
    os.kill(victim, signal.SIGKILL)

    def is_replaced() -> bool:
        found.update({template.pid: template for template in templates_of(daemon)})
        return bool(found) and len(set(daemon.pids("web")) - {victim}) == 2

    wait_until(is_replaced, "another worker")
    # a worker looks like its template until it has shown its own title
    return [template for pid, template in found.items() if pid not in daemon.pids("web")]


def test_a_daemon_without_apps_keeps_no_template(servd: Servd) -> None:
    daemon = servd('[services.job]\ncommand = ["sleep", "600"]').ready()
    wait_until(lambda: not templates_of(daemon), "the template has ended")
    with_app = '[services.job]\ncommand = ["sleep", "600"]\n' + CONFIG.replace("    ", "")
    servd.write(main_py=PID)
    assert daemon.reload(with_app)["outcome"] == "applied"
    assert len(templates_of(daemon)) == 1


def test_what_an_interpreter_reads_once() -> None:
    given = {"PYTHONPATH": "x", "LD_PRELOAD": "y", "LC_ALL": "C", "LANG": "C", "SHOP": "z"}
    assert variables_at_start(given) == {k: v for k, v in given.items() if k != "SHOP"}


def test_a_folder_that_is_missing_is_named(servd: Servd) -> None:
    daemon = servd(CONFIG, main_py=PID).ready()
    victim = daemon.pids("web")[0]
    servd.folder.rename(servd.folder.with_name("away"))
    try:
        os.kill(victim, signal.SIGKILL)
        failed = daemon.wait_for("worker exited", pid=0)
        assert failed["reason"] == (
            f"could not be started: No such file or directory ({servd.folder})"
        )
    finally:
        servd.folder.with_name("away").rename(servd.folder)
    wait_until(lambda: len(set(daemon.pids("web")) - {victim}) == 2, "another worker")
