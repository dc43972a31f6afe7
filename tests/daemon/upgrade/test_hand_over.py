"""SIGUSR2: who has what, and when, while one daemon takes the place of another."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import textwrap
import threading
from pathlib import Path

import httpx
import psutil

import servd as package

from support.apps import BINDS_ITSELF, CALLER, PLAIN, named, plain, web
from support.harness import DEADLINE, Servd, ServdProcess, alive, free_port, wait_until


def replaced(daemon: ServdProcess) -> None:
    answer = daemon.upgrade()
    assert answer.get("outcome") == "replaced", answer


class Asking:
    """A request in flight that takes as long as it is let."""

    def __init__(self, daemon: ServdProcess, path: str = "/held") -> None:
        self.answers: list[object] = []
        self._url = daemon.url("web") + path
        self._go = daemon.folder / "go"
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()
        daemon.wait_for_line("held")

    def _ask(self) -> None:
        try:
            self.answers.append(httpx.get(self._url, timeout=DEADLINE).status_code)
        except httpx.HTTPError as error:
            self.answers.append(repr(error))

    def answer(self, *, let: bool = True) -> object:
        if let:
            self._go.touch()
        self._thread.join()
        return self.answers[0]


def another_version(servd: Servd, patch: str) -> None:
    """What `python -m servd` starts from now on: servd with something else about it."""
    folder = servd.folder / "servd"
    folder.mkdir()
    real = Path(package.__file__).parent
    code = f"""
        __path__ = [{str(real)!r}]
        exec(compile(open({str(real / "__init__.py")!r}).read(), "servd", "exec"))
        from servd.daemon.upgrade.old_daemon import OldDaemon
        tell = OldDaemon._tell

        def patched(self, **message):
            {patch}

        OldDaemon._tell = patched
    """
    (folder / "__init__.py").write_text(textwrap.dedent(code))


def test_an_address_changes_hands_only_when_its_old_owner_has_left_it(servd: Servd) -> None:
    """Also where others, who drain, still need the old owner."""
    one, two = free_port(), free_port()

    def config(backend: int, right: int) -> str:
        front = """
            [services.web]
            app = "caller:app"
            listen = "127.0.0.1:0"
            log.access = false
            depends_on = ["backend"]
            timeouts.drain = "10m"
        """
        return front + named("backend", backend) + named("right", right)

    daemon = servd(config(one, two), main_py=PLAIN, caller_py=CALLER).ready()
    asking = Asking(daemon)
    daemon.edit(config(two, one))
    replaced(daemon)
    daemon.wait_for("servd ready", pid=daemon.pid)
    for _ in range(50):
        assert httpx.get(f"http://127.0.0.1:{one}/", timeout=DEADLINE).text == "right"
        assert httpx.get(f"http://127.0.0.1:{two}/", timeout=DEADLINE).text == "backend"
    assert asking.answer() == 200
    assert daemon.stop() == 0


def test_the_old_one_goes_on_where_the_new_one_dies_at_the_last_moment(servd: Servd) -> None:
    daemon = servd(web(), main_py=PLAIN).ready()
    pids = daemon.pids("web")
    another_version(
        servd, "tell(self, **message); 'ready' in message and __import__('os')._exit(7)"
    )
    answer = daemon.upgrade()
    assert answer["outcome"] == "failed", answer
    assert answer["detail"].startswith("the new servd exited with status 7")
    assert daemon.pids("web") == pids
    assert daemon.reload(web(2))["outcome"] == "applied"
    assert daemon.get("web").text == "2"
    assert daemon.stop() == 0


def test_a_new_version_may_say_more_than_the_old_one_knows(servd: Servd) -> None:
    daemon = servd(web(), main_py=PLAIN).ready()
    another_version(
        servd,
        "'ready' in message and message['ready'].update(more=1); tell(self, news=2);"
        " tell(self, **message)",
    )
    replaced(daemon)
    assert daemon.stop() == 0


def test_what_is_not_understood_is_a_failure_with_its_reason(servd: Servd) -> None:
    daemon = servd(web(), main_py=PLAIN).ready()
    another_version(servd, "tell(self, ready=1) if 'ready' in message else tell(self, **message)")
    answer = daemon.upgrade()
    assert "invalid message from the new servd" in answer["detail"], answer
    daemon.wait_for("upgrade failed")
    assert "Traceback" not in daemon.output
    assert daemon.stop() == 0


def test_a_second_upgrade_lets_the_first_one_drain(servd: Servd) -> None:
    daemon = servd(web(), main_py=PLAIN).ready()
    asking = Asking(daemon)
    daemon.edit('[daemon]\nshutdown_timeout = "100ms"\n' + web())
    replaced(daemon)
    replaced(daemon)
    assert asking.answer() == 200
    assert daemon.stop() == 0


def test_the_first_signal_to_one_that_drains_cuts_nothing(servd: Servd) -> None:
    daemon = servd(web(), main_py=PLAIN).ready()
    asking = Asking(daemon)
    first = daemon.process
    replaced(daemon)
    first.send_signal(signal.SIGTERM)
    daemon.wait_for("stopping", pid=first.pid)
    assert asking.answer() == 200
    assert first.wait(DEADLINE) == 0
    assert daemon.stop() == 0


def test_a_second_signal_ends_the_daemon_before_too(servd: Servd) -> None:
    daemon = servd(web(), main_py=PLAIN).ready()
    asking = Asking(daemon)
    first = daemon.process
    replaced(daemon)
    daemon.send(signal.SIGTERM)
    daemon.wait_for("stopping", pid=daemon.pid)
    daemon.send(signal.SIGTERM)
    assert daemon.wait() == 0
    assert first.wait(DEADLINE) == 0
    assert asking.answer(let=False) != 200


def binding(port: int, ends_after: float = 0) -> str:
    code = f"import signal, time; signal.signal(15, lambda *_: (time.sleep({ends_after}), exit()));"
    program = json.dumps(code + BINDS_ITSELF)
    return f"""
        [services.files]
        command = ["{sys.executable}", "-c", {program}, "{{port}}", "0"]
        listen = "127.0.0.1:{port}"
    """


def test_a_chain_of_upgrades_waits_for_the_program_that_has_the_address(servd: Servd) -> None:
    port = free_port()
    daemon = servd(binding(port, ends_after=2)).ready()
    replaced(daemon)
    replaced(daemon)
    wait_until(lambda: daemon.service("files")["state"] == "ready", "it runs again")
    assert httpx.get(f"http://127.0.0.1:{port}/").status_code == 200
    assert daemon.stop() == 0
    assert daemon.find("worker exited") == []


def test_an_app_takes_the_address_of_a_program_once_that_has_ended(servd: Servd) -> None:
    port = free_port()
    daemon = servd(binding(port)).ready()
    app = f"""
        [services.files]
        app = "main:app"
        listen = "127.0.0.1:{port}"
        env = {{ V = "an app" }}
    """
    servd.write(main_py=PLAIN)
    for config in (app, binding(port)):
        daemon.edit(config)
        replaced(daemon)
        wait_until(lambda: daemon.service("files")["state"] == "ready", "it runs")
        assert daemon.find("worker exited") == []
    assert daemon.stop() == 0


def test_an_address_of_the_daemons_own_that_goes_is_refused(servd: Servd) -> None:
    one, two = free_port(), free_port()

    def config(port: int) -> str:
        return f'[admin]\nmetrics = "127.0.0.1:{port}"\n' + web()

    daemon = servd(config(one), main_py=PLAIN).ready()
    wait_until(lambda: httpx.get(f"http://127.0.0.1:{one}/metrics").status_code == 200, "it is up")
    daemon.edit(config(two))
    replaced(daemon)
    assert httpx.get(f"http://127.0.0.1:{two}/metrics").status_code == 200

    def refused() -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", one)) != 0

    wait_until(refused, "the old address is nobody's")
    assert daemon.reload(config(one))["outcome"] == "applied"
    assert daemon.stop() == 0


def test_failed_attempts_leave_nothing_behind(servd: Servd) -> None:
    daemon = servd(web(), main_py=PLAIN).ready()
    before = {path for path in daemon.runtime.rglob("*") if "workers-" not in path.name}
    process = psutil.Process(daemon.pid)
    servd.write(main_py=plain("raise ValueError"))
    assert daemon.upgrade()["outcome"] == "failed"
    descriptors = process.num_fds()  # with the connection that may still be closing
    for _ in range(3):
        assert daemon.upgrade()["outcome"] == "failed"
    assert {p for p in daemon.runtime.rglob("*") if "workers-" not in p.name} == before
    assert [p.name for p in daemon.runtime.rglob("workers-*")] == [f"workers-{daemon.pid}.json"]
    wait_until(lambda: process.num_fds() <= descriptors, "no descriptor more than after the first")
    assert daemon.stop() == 0


def test_workers_of_a_predecessor_that_is_killed_are_ended(servd: Servd) -> None:
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(1000)"
    )
    config = f"""
        [services.stubborn]
        command = ["{sys.executable}", "-c", "{stubborn}"]
        timeouts = {{ drain = "100ms" }}
        {web(extra='timeouts = { drain = "100ms" }')}
    """
    daemon = servd(config, main_py=PLAIN).ready()
    (pid,) = daemon.pids("stubborn")
    worker, first = psutil.Process(pid), daemon.process
    os.kill(pid, signal.SIGSTOP)  # it does not notice that its parent dies
    replaced(daemon)
    first.kill()
    wait_until(lambda: not alive([worker]), "it is ended by the new daemon")
    assert daemon.stop() == 0


def test_another_runtime_folder_waits_for_a_restart(servd: Servd) -> None:
    """The harness names the folder by a variable, which wins over the file."""
    daemon = servd(web(), main_py=PLAIN).ready()
    started = "os.environ['SERVD_DAEMON__RUNTIME_DIR'] += '-other'"
    folder = servd.folder / "servd"
    folder.mkdir()
    real = Path(package.__file__).parent
    (folder / "__init__.py").write_text(
        f"import os\n__path__ = [{str(real)!r}]\n{started}\n"
        f"exec(compile(open({str(real / '__init__.py')!r}).read(), 'servd', 'exec'))\n"
    )
    replaced(daemon)
    answer = daemon.reload()
    assert answer["restart_needed"] == ["daemon.runtime_dir"], answer
    assert daemon.stop() == 0


def test_a_configuration_that_is_gone_is_said_in_one_line(servd: Servd) -> None:
    daemon = servd(web(), main_py=PLAIN).ready()
    (servd.folder / "servd.toml").rename(servd.folder / "elsewhere.toml")
    answer = daemon.upgrade()
    assert "servd.toml: no such file or folder" in answer["detail"], answer
    (servd.folder / "elsewhere.toml").rename(servd.folder / "servd.toml")
    replaced(daemon)
    assert daemon.stop() == 0
