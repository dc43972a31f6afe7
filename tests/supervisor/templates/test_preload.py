"""`preload = true`: a template imports the app once, and forks the workers."""

from __future__ import annotations

import os
import signal
import sys

import psutil
import pytest

from support.harness import Servd, wait_until

APP = """
    import json, logging, os, random, threading

    print("imported by", os.getpid(), flush=True)
    IMPORTED_BY = os.getpid()
    HOOKS = []
    os.register_at_fork(after_in_child=lambda: HOOKS.append(os.getpid()))
    LOCK = threading.Lock()

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        with LOCK:
            body = json.dumps({
                "pid": os.getpid(), "parent": os.getppid(), "imported_by": IMPORTED_BY,
                "hooks": HOOKS, "random": random.random(), "worker": os.environ["SERVD_WORKER"],
                "own": os.environ.get("OWN"), "uid": os.getuid(), "folder": os.getcwd(),
                "group": os.getpgid(0), "threads": [t.name for t in threading.enumerate()],
            }).encode()
        logging.getLogger("shop").warning("asked")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
"""

CONFIG = """
    [services.web]
    app = "main:app"
    listen = "127.0.0.1:0"
    workers = 3
    preload = true
    env = { OWN = "of the service" }
"""


def test_workers_are_forked_from_one_import(servd: Servd) -> None:
    daemon = servd(CONFIG, main_py=APP).ready()
    pids = daemon.pids("web")
    by_pid = {}

    def all_asked() -> bool:
        answer = daemon.get("web").json()
        by_pid[answer["pid"]] = answer
        return len(by_pid) == 3

    wait_until(all_asked, "each worker answers")
    assert sorted(by_pid) == sorted(pids)
    answers = list(by_pid.values())
    (importer,) = {answer["imported_by"] for answer in answers}
    assert importer not in pids
    assert len(daemon.lines(f"imported by {importer}")) == 1
    for answer in answers:
        assert answer["parent"] == daemon.pid
        assert answer["group"] == answer["pid"]
        assert answer["own"] == "of the service"
        assert answer["folder"] == str(servd.folder)
        assert answer["hooks"][-1] == answer["pid"]
    assert {answer["worker"] for answer in answers} == {"0", "1", "2"}
    assert len({answer["random"] for answer in answers}) == 3
    ids = {event["request_id"] for event in daemon.lines("request")}
    assert len(ids) == len(daemon.lines("request"))
    asked = daemon.wait_for_line("asked")
    assert asked["logger"] == "shop"
    assert asked["worker"] in (0, 1, 2)


def test_what_the_import_prints_goes_to_the_file_of_the_service(servd: Servd) -> None:
    file = servd.folder / "web.log"
    daemon = servd(f"{CONFIG}\nlog.file = 'web.log'\n", main_py=APP).ready()
    importer = daemon.get("web").json()["imported_by"]
    wait_until(lambda: f"imported by {importer}" in file.read_text(), "it is printed there")
    config = f"{CONFIG}\nlog.file = 'other.log'\n"
    assert daemon.reload(config)["outcome"] == "applied"
    assert daemon.get("web").json()["imported_by"] == importer
    other = servd.folder / "other.log"
    os.kill(importer, signal.SIGKILL)
    for pid in daemon.pids("web"):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: other.exists() and "imported by" in other.read_text(), "it is printed there")


def test_a_killed_worker_is_forked_again_and_a_roll_imports_anew(servd: Servd) -> None:
    daemon = servd(CONFIG, main_py=APP).ready()
    before = daemon.get("web").json()["imported_by"]
    victim = daemon.pids("web")[0]
    os.kill(victim, signal.SIGKILL)
    exited = daemon.wait_for("worker exited", pid=victim)
    assert exited["reason"] == "was killed by SIGKILL"
    wait_until(lambda: len(set(daemon.pids("web")) - {victim}) == 3, "another has taken its place")
    assert daemon.get("web").json()["imported_by"] == before
    assert daemon.reload(CONFIG.replace("of the service", "another"))["outcome"] == "applied"
    answer = daemon.get("web").json()
    assert answer["own"] == "another"
    assert answer["imported_by"] != before
    wait_until(lambda: not psutil.pid_exists(before), "the old template has ended")


def test_another_template_takes_the_place_of_one_that_died(servd: Servd) -> None:
    daemon = servd(CONFIG, main_py=APP).ready()
    template = daemon.get("web").json()["imported_by"]
    os.kill(template, signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(template), "the template has ended")
    victim = daemon.pids("web")[0]
    os.kill(victim, signal.SIGKILL)

    def is_replaced() -> bool:
        pids = daemon.pids("web")
        return len(pids) == 3 and victim not in pids and daemon.service("web")["state"] == "ready"

    wait_until(is_replaced, "a worker of another template")


def test_an_import_that_fails_is_reported_and_tried_again(servd: Servd) -> None:
    broken = """
        import os
        if not os.path.exists("whole"):
            raise RuntimeError("no database")
        async def app(scope, receive, send):
            assert scope["type"] == "http"
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"ok"})
    """
    daemon = servd(CONFIG, main_py=broken)
    failed = daemon.wait_for_line("cannot load main:app")
    assert failed["error"] == "cannot import main: RuntimeError: no database"
    assert "main.py" in failed["exception"]
    (servd.folder / "whole").touch()
    daemon.ready()
    assert daemon.get("web").text == "ok"


def test_threads_that_the_import_has_started_are_named(servd: Servd) -> None:
    threaded = """
        import threading, time
        threading.Thread(target=time.sleep, args=(3600,), name="ticker", daemon=True).start()
        async def app(scope, receive, send): pass
    """
    daemon = servd(CONFIG, main_py=threaded)
    failed = daemon.wait_for_line("cannot load main:app")
    assert failed["error"] == (
        "preload: main:app has started threads (ticker), which a fork would lose: start them in "
        "the lifespan of the app, or write preload = false"
    )


def test_an_import_that_ends_its_process_is_a_failed_start(servd: Servd) -> None:
    daemon = servd(CONFIG, main_py="import os; os._exit(7)")
    failed = daemon.wait_for("worker exited", pid=0)
    assert failed["reason"] == (
        "could not be started: the template, which imports the app, exited with status 7"
    )


def test_an_import_that_takes_too_long_says_where_it_is(servd: Servd) -> None:
    config = CONFIG + '    timeouts = { startup = "1s" }\n'
    daemon = servd(config, main_py="import time\ndef stuck():\n    time.sleep(3600)\nstuck()")
    failed = daemon.wait_for("worker exited", pid=0)
    assert failed["reason"] == (
        "could not be started: the app was not imported within 1 s (timeouts.startup)"
    )
    assert any("in stuck" in str(event.get("event")) for event in daemon.events)


@pytest.mark.parametrize("app", ["", "async def app(scope, receive, send): ..."])
@pytest.mark.parametrize("when", ["before", "after_in_child", "after_in_parent"])
def test_a_hook_that_hangs_keeps_no_one_else_waiting(servd: Servd, when: str, app: str) -> None:
    """It counts as a start that takes too long, and the traceback names the hook."""
    hook = "def stuck():\n    time.sleep(3600)\n"
    main = f"import os, time\n{hook}os.register_at_fork({when}=stuck)\n{app}\n"
    config = CONFIG + '    timeouts = { startup = "1s" }\n'
    daemon = servd(config, main_py=main)
    failed = daemon.wait_for("worker exited", pid=0)
    assert failed["reason"] == (
        "could not be started: the app was not imported within 1 s (timeouts.startup)"
    )
    shown = "in stuck" if when != "after_in_child" else "in prove_fork"
    assert any(shown in str(event.get("event")) for event in daemon.events)
    assert not daemon.lines("the template does not answer")


def test_an_app_with_an_interpreter_of_its_own_is_preloaded_there(servd: Servd) -> None:
    config = CONFIG + f'    python = "{sys.executable}"\n'
    daemon = servd(config, main_py=APP).ready()
    assert daemon.get("web").json()["imported_by"] not in daemon.pids("web")


def test_a_template_ends_with_its_daemon(servd: Servd) -> None:
    daemon = servd(CONFIG, main_py=APP).ready()
    family = psutil.Process(daemon.pid).children(recursive=True)
    titles = {process.cmdline()[0] for process in family}
    assert {"servd: template of web", "servd: worker 0 of web"} <= titles
    os.kill(daemon.pid, signal.SIGKILL)
    _gone, alive = psutil.wait_procs(family, timeout=60)
    assert not alive


def test_requests_survive_a_roll_and_a_scale(servd: Servd) -> None:
    daemon = servd(CONFIG, main_py=APP).ready()
    daemon.act("web", "scale", workers=5)
    assert len(daemon.pids("web")) == 5
    (importer,) = {daemon.get("web").json()["imported_by"] for _ in range(20)}
    assert psutil.pid_exists(importer)
