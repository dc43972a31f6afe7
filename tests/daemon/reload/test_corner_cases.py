"""Where two things go wrong at once, or one after the other."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from pathlib import Path

import pytest

from support.apps import BINDS_ITSELF, PLAIN, SLEEP, plain, web
from support.harness import Servd, command, wait_until


def test_a_one_by_one_roll_whose_old_code_is_broken_too_leaves_nothing_behind(servd: Servd) -> None:
    extra = 'rollout = { strategy = "one-by-one" }\ntimeouts.startup = "8s"'
    daemon = servd(web(extra=extra), main_py=PLAIN).ready()
    before = daemon.pids("web")
    broken = plain('assert "1" not in (os.environ["SERVD_WORKER"], os.environ["SERVD_GENERATION"])')
    servd.write(main_py=broken)
    answer = daemon.ask("POST", "/v1/services/web/restart").json()
    assert answer["outcome"] == "rolled_back"
    web_now = daemon.service("web")
    assert web_now["generation"] == 1
    assert before[1] in {process["pid"] for process in web_now["processes"]}
    generations = {
        event["generation"]
        for event in daemon.events
        if event.get("event") == "worker ready"
        and event["pid"] in {process.pid for process in daemon.descendants()}
    }
    assert generations == {1}
    servd.write(main_py=PLAIN)
    assert daemon.ask("POST", "/v1/services/web/restart").json()["outcome"] == "applied"
    assert daemon.stop() == 0


def test_a_slot_that_died_once_can_be_scaled_to_again(servd: Servd) -> None:
    daemon = servd(web(workers=2), main_py=PLAIN).ready()
    (_, victim) = daemon.pids("web")
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: daemon.service("web")["restarts"] == 1, "the death is noticed")
    wait_until(lambda: daemon.service("web")["workers"]["ready"] == 2, "it is replaced")
    assert daemon.reload(web(workers=1))["outcome"] == "applied"
    assert daemon.reload(web(workers=2))["outcome"] == "applied"


def test_a_scale_that_failed_can_be_tried_again(servd: Servd) -> None:
    broken = plain('assert os.environ["SERVD_WORKER"] != "1"')
    daemon = servd(web(workers=1), main_py=broken).ready()
    assert daemon.reload(web(workers=2))["outcome"] == "rolled_back"
    assert daemon.service("web")["workers"] == {"desired": 1, "ready": 1}
    servd.write(main_py=PLAIN)
    assert daemon.reload(web(workers=2))["outcome"] == "applied"


def test_a_worker_on_a_shared_socket_is_not_ready_because_another_answers(servd: Servd) -> None:
    servd.write(
        servd_toml="""
            [services.web]
            command = ["sleep", "1000"]
            listen = "127.0.0.1:0"
            ready = "port"
        """
    )
    done = command("check", folder=servd.folder)
    assert done.returncode == 78
    assert "services.web.ready: servd binds the address" in done.stderr


def test_a_task_that_failed_twice_is_tried_again_by_a_reload(servd: Servd) -> None:
    def config(code: str) -> str:
        return f"""
            [services.m]
            command = ["sh", "-c", "{code}"]
            kind = "task"
            {web().replace("[services.web]", "[services.web]" + chr(10) + 'depends_on = ["m"]')}
        """

    first = "test -e mended"
    daemon = servd(config(first), main_py=PLAIN).ready()
    assert daemon.service("m")["state"] == "failed"
    assert daemon.reload(config("exit 2"))["outcome"] == "rolled_back"
    Path(servd.folder / "mended").touch()
    assert daemon.reload(config(first))["outcome"] == "unchanged"
    wait_until(lambda: daemon.service("web")["state"] == "ready", "all runs after all")


def test_dependents_of_a_service_that_waits_wait_too(servd: Servd) -> None:
    broken = f'[services.a]\napp = "nosuch:app"\nrestart.give_up_after = 1\n[services.x]\n{SLEEP}\n'
    chain = "".join(
        f'[services.{name}]\n{SLEEP}\ndepends_on = ["{need}"]\n' for name, need in ("ba", "cb")
    )
    daemon = servd(broken).ready()
    assert daemon.reload(broken + chain)["outcome"] == "applied"
    states = {s["name"]: s["state"] for s in daemon.status()["services"]}
    assert (states["b"], states["c"]) == ("waiting", "waiting")
    mended = (broken + chain).replace('app = "nosuch:app"', SLEEP)
    assert daemon.reload(mended)["outcome"] == "applied"
    wait_until(lambda: daemon.service("c")["state"] == "ready", "all run once the first does")


def test_dependents_wait_for_a_service_that_was_ready_once(servd: Servd) -> None:
    flaky = plain('assert not os.path.exists("broken")')
    one = '[services.a]\napp = "main:app"\nrestart = { backoff = "30s" }\n'
    daemon = servd(one, main_py=flaky).ready()
    (servd.folder / "broken").touch()
    os.kill(daemon.pids("a")[0], signal.SIGKILL)
    wait_until(lambda: daemon.service("a")["state"] == "backoff", "it cannot come back")
    two = f'{one}[services.b]\n{SLEEP}\ndepends_on = ["a"]\n'
    assert daemon.reload(two)["outcome"] == "applied"
    assert daemon.service("b")["state"] == "waiting"


def test_a_stop_in_the_middle_of_an_interrupt_does_not_bring_the_old_back(servd: Servd) -> None:
    def config(pause: float) -> str:
        return f"""
            [services.web]
            command = ["python3", "-c", "{BINDS_ITSELF}", "{{port}}", "{pause}"]
            ready = "port"
        """

    daemon = servd(config(0)).ready()
    daemon.edit(config(10000))
    daemon.send(signal.SIGHUP)
    wait_until(lambda: daemon.pids("web") == [], "the old one has ended")
    assert daemon.stop() == 0  # long before the new one would have been ready
    assert len({e["generation"] for e in daemon.find("worker ready", service="web")}) == 1


@pytest.mark.parametrize("now", [True, False])
def test_a_stop_while_a_reload_makes_room_ends_everything(servd: Servd, now: bool) -> None:
    """Two generations drain long requests when a third is to be committed, or waits for them."""
    daemon = servd(web(1), main_py=PLAIN).ready()
    waiting = []
    for value in (2, 3):
        thread = threading.Thread(target=lambda: daemon.get("web", "/held"))
        thread.start()
        waiting.append(thread)
        old = daemon.pids("web")
        daemon.wait_for_line("held", generation=value - 1)
        assert daemon.reload(web(value))["outcome"] == "applied"
        assert not set(old) & set(daemon.pids("web"))
    added = f"{web(4)}\n[services.extra]\n{SLEEP}\n"
    daemon.edit(added)
    with daemon.running("reload", "--now") if now else contextlib.nullcontext():
        if now:
            daemon.wait_for("worker ready", service="web", generation=4)
        else:
            daemon.send(signal.SIGHUP)
            daemon.wait_for("reload waits", service="web")
        daemon.remember()
        daemon.send(signal.SIGTERM)
        daemon.wait_for("service stopping", service="web")
        (servd.folder / "go").touch()
        assert daemon.wait() == 0
    assert daemon.leftovers() == []
    for thread in waiting:
        thread.join()


def test_an_edit_that_means_the_same_keeps_every_worker(servd: Servd) -> None:
    """And the edit after it is compared with what the file says now."""
    service = '[services.web]\ncommand = ["sleep", "1000"]\n'
    daemon = servd(f'{service}env = {{ A = "1" }}\nworkers = 1\n').ready()
    before = daemon.pids("web")
    answer = daemon.reload(f'[defaults]\nenv = {{ A = "1" }}\n{service}')
    assert (answer["outcome"], daemon.pids("web")) == ("unchanged", before)
    answer = daemon.reload(f'[defaults]\nenv = {{ A = "2" }}\n{service}')
    (change,) = answer["changes"]
    assert change["keys"] == [{"sign": "~", "key": "env.A", "before": '"1"', "after": '"2"'}]
    assert daemon.pids("web") != before
