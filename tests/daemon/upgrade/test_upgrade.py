"""SIGUSR2: a newly started daemon takes the place of the one that runs."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading

import httpx
import psutil
import pytest

from servd import serve

from support.apps import BINDS_ITSELF, CALLER, HOLD, PLAIN, plain, web
from support.harness import DEADLINE, Servd, ServdProcess, alive, free_port, wait_until
from support.load import client_of, under_load

BROKEN = 'raise ImportError("this version of servd is broken")\n'


def replaced(daemon: ServdProcess) -> None:
    answer = daemon.upgrade()
    assert answer.get("outcome") == "replaced", answer


def by_signal(daemon: ServdProcess) -> None:
    before = daemon.pid
    daemon.send(signal.SIGUSR2)
    found = daemon.wait_for("upgrade finished", pid=before)
    daemon.is_replaced_by(found["new_pid"])
    daemon.wait_for("servd ready", pid=daemon.pid)


def test_ten_upgrades_under_load_lose_nothing(servd: Servd) -> None:
    daemon = servd(web(), main_py=PLAIN).ready()
    first, workers = daemon.process, [psutil.Process(pid) for pid in daemon.pids("web")]
    daemons: list[psutil.Process] = []

    def upgrade() -> None:
        by_signal(daemon)
        daemons.append(psutil.Process(daemon.pid))

    tally = under_load(client_of(daemon), *[upgrade] * 10)
    assert tally.lost == []
    assert first.wait(DEADLINE) == 0
    wait_until(lambda: not alive([*workers, *daemons[:-1]]), "all before the last have ended")
    assert daemon.service("web")["generation"] == 11
    assert daemon.status()["predecessor"] is None
    assert daemon.stop() == 0


def test_a_broken_new_version_leaves_the_old_one_in_place(servd: Servd) -> None:
    daemon = servd(web(), main_py=PLAIN).ready()
    pids = daemon.pids("web")
    (servd.folder / "servd").mkdir()  # `python -m` looks here first
    (servd.folder / "servd" / "__init__.py").write_text(BROKEN)

    def fail() -> None:
        answer = daemon.upgrade()
        assert answer["outcome"] == "failed", answer
        assert answer["detail"].endswith("exited with status 1 before it was ready (see its log)")

    assert under_load(client_of(daemon), fail, fail).lost == []
    assert "this version of servd is broken" in daemon.output
    assert daemon.pids("web") == pids
    assert daemon.reload(web(2))["outcome"] == "applied"
    assert daemon.stop() == 0


def test_an_app_that_no_longer_starts_leaves_the_old_daemon_in_place(
    servd: Servd,
) -> None:
    daemon = servd(web(), main_py=PLAIN).ready()
    pids = daemon.pids("web")
    servd.write(main_py=plain('raise ValueError("half an edit")'))

    def fail() -> None:
        done = daemon.cli("upgrade")
        assert done.returncode == 1
        assert re.match(r"The new servd cannot take over: web: worker \d: ", done.stderr)
        assert "ValueError: half an edit" in done.stderr

    assert under_load(client_of(daemon), fail).lost == []
    assert daemon.pids("web") == pids
    assert [child.pid for child in daemon.descendants()] == pids
    servd.write(main_py=PLAIN)
    replaced(daemon)
    assert daemon.stop() == 0


def test_a_mistake_in_the_file_is_told_with_its_place(servd: Servd) -> None:
    daemon = servd(web(), main_py=PLAIN).ready()
    daemon.edit(web(extra='timeouts = { drian = "5s" }'))
    answer = daemon.upgrade()
    assert answer["outcome"] == "failed"
    assert "servd.toml:" in answer["detail"]
    assert "drian" in answer["detail"]
    assert daemon.get("web").text == "1"
    assert daemon.stop() == 0


def test_what_was_set_by_hand_goes_on_with_the_numbers_of_generations(servd: Servd) -> None:
    config = web() + '\n[services.other]\ncommand = ["sleep", "1000"]\n'
    daemon = servd(config, main_py=PLAIN).ready()
    daemon.act("web", "scale", workers=3)
    daemon.act("other", "stop")
    daemon.reload(web(2) + '\n[services.other]\ncommand = ["sleep", "1000"]\n')
    before = daemon.status()
    replaced(daemon)
    after = daemon.status()
    assert after["config"]["generation"] == before["config"]["generation"]
    web_now, other = daemon.service("web"), daemon.service("other")
    assert web_now["workers"] == {"desired": 3, "ready": 3}
    assert web_now["by_hand"] == {"workers": 3, "file": 2}
    assert web_now["generation"] == 3
    assert other["state"] == "stopped"
    replaced(daemon)
    assert daemon.service("web")["workers"]["ready"] == 3
    assert daemon.act("other", "start")["outcome"] == "applied"
    assert daemon.stop() == 0


def test_an_edit_of_the_number_of_workers_ends_what_was_set_by_hand(servd: Servd) -> None:
    daemon = servd(web(workers=2), main_py=PLAIN).ready()
    daemon.act("web", "scale", workers=4)
    before = daemon.status()["config"]["generation"]
    daemon.edit(web(workers=1))
    replaced(daemon)
    assert daemon.service("web")["workers"] == {"desired": 1, "ready": 1}
    assert daemon.status()["config"]["generation"] == before + 1
    assert daemon.stop() == 0


def test_requests_in_flight_are_answered_by_the_old_workers(servd: Servd) -> None:
    daemon = servd(web(), main_py=PLAIN).ready()
    url, old = daemon.url("web"), daemon.pid
    answers: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: answers.append(httpx.get(url + "/held")))
    asking.start()
    daemon.wait_for_line("held")
    daemon.edit(web("new"))
    replaced(daemon)
    assert daemon.status()["predecessor"] == old
    assert httpx.get(url).text == "new"
    (servd.folder / "go").touch()
    asking.join()
    assert [answer.text for answer in answers] == ["1"]
    wait_until(lambda: daemon.status()["predecessor"] is None, "the old one has ended")
    assert daemon.stop() == 0


def test_a_stop_waits_for_the_daemon_before(servd: Servd) -> None:
    daemon = servd(web(), main_py=PLAIN).ready()
    url = daemon.url("web")
    answers: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: answers.append(httpx.get(url + "/held")))
    asking.start()
    daemon.wait_for_line("held")
    first = daemon.process
    replaced(daemon)
    daemon.remember()
    daemon.send(signal.SIGTERM)
    daemon.wait_for("service stopped", pid=daemon.pid)
    assert first.poll() is None
    assert not daemon.over
    (servd.folder / "go").touch()
    assert daemon.wait() == 0
    assert first.poll() == 0
    assert daemon.leftovers() == []
    asking.join()
    assert [answer.status_code for answer in answers] == [200]


def test_sockets_of_every_kind_go_on(servd: Servd) -> None:
    config = f"""
        [services.web]
        app = "caller:app"
        listen = ["unix:{servd.folder}/web.sock", "127.0.0.1:{free_port()}"]
        depends_on = ["backend"]
        [services.backend]
        app = "main:app"
        env = {{ V = "here" }}
    """
    daemon = servd(config, main_py=PLAIN, caller_py=CALLER).ready()
    inode = os.stat(servd.folder / "web.sock").st_ino
    for _ in range(2):
        replaced(daemon)
        transport = httpx.HTTPTransport(uds=str(servd.folder / "web.sock"))
        with httpx.Client(transport=transport) as client:
            assert client.get("http://web/").text == "here"
        wait_until(lambda: daemon.status()["predecessor"] is None, "the old one has ended")
    assert os.stat(servd.folder / "web.sock").st_ino == inode
    assert daemon.stop() == 0
    assert not (servd.folder / "web.sock").exists()


def test_a_program_that_binds_itself_starts_when_the_old_one_has_ended(servd: Servd) -> None:
    port = free_port()
    config = f"""
        [services.files]
        command = ["{sys.executable}", "-c", {json.dumps(BINDS_ITSELF)}, "{{port}}", "0"]
        listen = "127.0.0.1:{port}"
        [services.web]
        app = "main:app"
        depends_on = ["files"]
    """
    daemon = servd(config, main_py=PLAIN).ready()
    (pid,) = daemon.pids("files")
    replaced(daemon)
    wait_until(lambda: daemon.service("files")["state"] == "ready", "it runs again")
    assert daemon.pids("files") != [pid]
    assert httpx.get(f"http://127.0.0.1:{port}/").status_code == 200
    assert daemon.service("web")["state"] == "ready"
    assert daemon.stop() == 0


@pytest.mark.parametrize(("run", "times"), [("always", 2), ("once", 1)])
def test_a_task_runs_again_before_those_who_need_it_unless_once_is_enough(
    servd: Servd, run: str, times: int
) -> None:
    config = f"""
        [services.migrate]
        kind = "task"
        run = "{run}"
        command = ["sh", "-c", "echo run >> runs"]
        [services.web]
        app = "main:app"
        depends_on = ["migrate"]
    """
    daemon = servd(config, main_py=PLAIN).ready()
    replaced(daemon)
    assert (servd.folder / "runs").read_text().count("run") == times
    assert [s["state"] for s in daemon.status()["services"]] == ["completed", "ready"]
    assert daemon.reload()["outcome"] == "unchanged"
    assert (servd.folder / "runs").read_text().count("run") == times
    assert daemon.stop() == 0


def test_a_service_that_did_not_run_before_fails_no_upgrade(servd: Servd) -> None:
    config = (
        web()
        + """
        [services.broken]
        app = "broken:app"
        restart.give_up_after = 1
    """
    )
    daemon = servd(config, main_py=PLAIN, broken_py="raise ValueError\n").ready()
    assert daemon.service("broken")["state"] in ("backoff", "failed")
    replaced(daemon)
    assert daemon.service("web")["state"] == "ready"
    servd.write(broken_py=PLAIN)
    replaced(daemon)
    wait_until(lambda: daemon.service("broken")["state"] == "ready", "it is well now")
    assert daemon.stop() == 0


def test_a_reload_that_is_asked_for_during_an_upgrade_is_done_after_it(
    servd: Servd,
) -> None:
    daemon = servd(web(1), main_py=plain(HOLD)).ready()
    before = daemon.pid
    (servd.folder / "hold").touch()
    daemon.send(signal.SIGUSR2)
    daemon.wait_for("servd started", replaces=before)
    daemon.edit(web(2))
    daemon.send(signal.SIGHUP)
    (servd.folder / "hold").unlink()
    daemon.is_replaced_by(daemon.wait_for("upgrade finished")["new_pid"])
    wait_until(lambda: daemon.get("web").text == "2", "the edit is in force")
    assert daemon.stop() == 0


def test_a_stop_in_the_midst_of_an_upgrade_ends_both_daemons(servd: Servd) -> None:
    daemon = servd(web(), main_py=PLAIN).ready()
    servd.write(main_py=plain("time.sleep(10000)"))
    daemon.send(signal.SIGUSR2)
    daemon.wait_for("worker started", generation=2)
    assert daemon.stop() == 0


def test_a_killed_daemon_leaves_its_place_to_the_one_that_starts(servd: Servd) -> None:
    """The one that starts is ready, and there is nobody to be waited for any more."""
    daemon = servd(web(), main_py=PLAIN).ready()
    servd.write(main_py=plain(HOLD))
    (servd.folder / "hold").touch()
    daemon.send(signal.SIGUSR2)
    started = daemon.wait_for("worker started", generation=2)
    successor = psutil.Process(started["pid"]).ppid()
    daemon.send(signal.SIGKILL)
    daemon.process.wait()
    (servd.folder / "hold").unlink()
    daemon.is_replaced_by(successor)
    daemon.wait_for("servd ready", pid=successor)
    assert daemon.get("web").text == "1"
    assert daemon.stop() == 0


def test_a_killed_new_daemon_leaves_nothing_in_the_runtime_folder(servd: Servd) -> None:
    daemon = servd(web(), main_py=PLAIN).ready()
    ours = set((daemon.runtime / "n").iterdir())
    servd.write(main_py=plain(HOLD))
    (servd.folder / "hold").touch()
    daemon.send(signal.SIGUSR2)
    started = daemon.wait_for("worker started", generation=2)
    os.kill(psutil.Process(started["pid"]).ppid(), signal.SIGKILL)
    daemon.wait_for("upgrade failed")
    wait_until(lambda: set((daemon.runtime / "n").iterdir()) == ours, "its sockets are gone")
    (servd.folder / "hold").unlink()
    assert daemon.get("web").text == "1"
    assert daemon.stop() == 0


def test_a_daemon_of_a_python_program_is_not_replaced(servd: Servd) -> None:
    servd.write(main_py=PLAIN)
    with serve("main:app", port=0, working_dir=str(servd.folder), threaded=True) as server:
        answer = server._admin.post("/v1/upgrade")
        assert answer.status == 409
        assert "servd.serve()" in answer.body["title"]


def test_the_command_says_what_runs_now_and_waits_for_the_drain(servd: Servd) -> None:
    daemon = servd(web(), main_py=PLAIN).ready()
    done = daemon.cli("upgrade", "--wait-drained")
    assert done.returncode == 0, done.stderr
    pid = daemon.status()["pid"]
    daemon.is_replaced_by(pid)
    assert done.stdout.startswith("replaced in ")
    assert done.stdout.endswith(f"pid {pid}\n")
    assert daemon.process.poll() == 0
    done = daemon.cli("upgrade", "--json")
    daemon.is_replaced_by(json.loads(done.stdout)["pid"])
    assert daemon.stop() == 0


def test_a_second_daemon_is_refused_with_the_pid_of_the_new_one(servd: Servd) -> None:
    daemon = servd(web(), main_py=PLAIN).ready()
    replaced(daemon)
    environ = {"SERVD_DAEMON__RUNTIME_DIR": str(daemon.runtime)}
    second = servd.run("--config", "servd.toml", environ=environ)
    assert second.wait() == 1
    assert f"another servd (pid {daemon.pid}) already uses" in second.output
    assert daemon.stop() == 0
