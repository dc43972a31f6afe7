"""An app with `preload` is loaded beside the imports of the daemon."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import psutil
import pytest

from support.harness import Servd, command, wait_until

APP = """
    import os
    with open("imports", "a") as file:
        print(os.getpid(), file=file)

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})
"""

CONFIG = """
    [services.web]
    app = "main:app"
    listen = "127.0.0.1:0"
    workers = 2
    preload = true
"""

LONG = "\n    import time\n    time.sleep(10000)\n"


def imports(folder: Path) -> list[int]:
    file = folder / "imports"
    return [int(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_what_was_begun_early_is_what_the_workers_come_from(servd: Servd) -> None:
    daemon = servd(CONFIG, main_py=APP).ready()
    assert daemon.get("web").text == "ok"
    (importer,) = imports(servd.folder)
    assert psutil.Process(importer).cmdline()[0] == "servd: template of web"
    assert daemon.stop() == 0
    assert not psutil.pid_exists(importer)


def test_a_daemon_that_is_refused_imports_nothing(servd: Servd) -> None:
    first = servd(CONFIG, main_py=APP).ready()
    environ = {"SERVD_DAEMON__RUNTIME_DIR": str(first.runtime)}
    second = command("--config", "servd.toml", folder=servd.folder, environ=environ)
    assert f"another servd (pid {first.pid}) already uses" in second.stderr
    assert len(imports(servd.folder)) == 1


def test_an_app_waits_for_the_services_that_it_depends_on(servd: Servd) -> None:
    seen = servd.folder / "seen"
    app = f"""
    import os
    assert os.path.exists({str(seen)!r}), "the task has not run"
    {APP}"""
    config = f"""
    {CONFIG}
    depends_on = ["prepare"]
    [services.prepare]
    kind = "task"
    command = ["touch", {str(seen)!r}]
    """
    daemon = servd(config, main_py=app).ready()
    assert daemon.get("web").text == "ok"
    assert len(imports(servd.folder)) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_import_ends_with_its_daemon(servd: Servd, number: signal.Signals) -> None:
    daemon = servd(f"{CONFIG}\n    timeouts.startup = '1h'\n", main_py=APP + LONG)
    (importer,) = wait_until(lambda: imports(servd.folder), "the import has begun")
    daemon.send(number)
    daemon.process.wait()
    wait_until(lambda: not psutil.pid_exists(importer), "it has ended")


def test_a_mistake_that_only_the_start_finds_ends_the_import(servd: Servd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        daemon = servd(f"admin.metrics = '{address}'\n{CONFIG}", main_py=APP + LONG)
        assert daemon.wait() == 1
    assert f"cannot listen on {address}" in daemon.output
    for importer in imports(servd.folder):
        wait_until(partial(ended, importer), "it has ended")


def test_the_folder_of_its_metrics_is_there(servd: Servd) -> None:
    counting = """
    import prometheus_client
    prometheus_client.Counter("hits", "Requests.").inc()
    """
    daemon = servd(CONFIG, main_py=counting + APP).ready()
    assert len(imports(servd.folder)) == 1
    assert daemon.lines("cannot load") == []
    assert not daemon.find("worker exited")
    assert list((daemon.runtime / "m" / "web").iterdir()), "the import has counted there"


def test_an_app_that_gpus_are_kept_from_sees_none_at_its_import(servd: Servd) -> None:
    seeing = """
    import os
    with open("seen", "a") as file:
        print(repr(os.environ.get("CUDA_VISIBLE_DEVICES")), file=file)
    """
    environ = {"CUDA_VISIBLE_DEVICES": "0,1"}
    config = f"{CONFIG}\n    gpus = 'none'\n"
    servd(config, main_py=seeing + APP, environ=environ).ready()
    assert (servd.folder / "seen").read_text() == "''\n"


def test_what_a_refused_start_has_imported_leaves_no_process(servd: Servd) -> None:
    leaving = """
    import subprocess
    child = subprocess.Popen(["sleep", "10000"], start_new_session=True)
    with open("child", "w") as file:
        print(child.pid, file=file)
    """
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        config = f"admin.metrics = '{address}'\n{CONFIG}"
        daemon = servd(config, main_py=leaving + APP + LONG)
        assert daemon.wait() == 1
    if (file := servd.folder / "child").exists() and (text := file.read_text().strip()):
        wait_until(partial(ended, int(text)), "it has ended")


def ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_one_that_was_asked_for_something_else_is_not_taken(tmp_path: Path) -> None:
    """In a process of its own, which becomes the parent of orphans."""
    (tmp_path / "main.py").write_text("app = None\n")
    code = """
import dataclasses, os, sys
from servd.supervisor.templates.start import start_early
start_early(inherits_all=True)
from servd.supervisor.templates.early_apps import EarlyApps
from support.plans import HOST, plan_of
host = dataclasses.replace(HOST, environ=dict(os.environ), python=sys.executable)
web = {"app": "main:app", "preload": True, "workers": 2, "env": dict(os.environ)}
web["directory"] = os.getcwd()
plan = plan_of({"web": web}, host).service("web")
apps = EarlyApps()

def begun():
    apps.begin([plan], 1)
    (app,) = apps._waiting.values()
    return app

app = begun()
assert apps.take(plan, 2) is None, "another generation"
assert app.socket.fileno() == -1
app = begun()
assert apps.take(dataclasses.replace(plan, directory="/"), 1) is None, "another folder"
assert app.socket.fileno() == -1
app = begun()
assert apps.take(plan, 1) is app
assert apps.take(plan, 1) is None, "once"
process, _ = app.claim()
os.kill(process.pid, 0)
process.kill()
process.wait()
apps.begin([dataclasses.replace(plan, workers=0)], 1)
apps.begin([plan], 0)
assert not apps._waiting
print("passed")
"""
    paths = [str(Path(__file__).parents[2]), *sys.path]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environ, capture_output=True, text=True
    )
    assert done.stdout == "passed\n", done.stderr
