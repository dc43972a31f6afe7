"""What happens when a start does not go well, and in which order things start."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import json
import os
import signal
import socket
import termios
import textwrap
from collections.abc import Iterator
from datetime import datetime

import httpx
import psutil
import pytest

from support.apps import OK
from support.harness import DEADLINE, Servd, ServdProcess, command, wait_until

BROKEN = 'raise ValueError("the model is not there")\n'


def test_a_service_starts_only_once_its_dependency_is_ready(servd: Servd) -> None:
    """The dependency's lifespan takes a while; independent services do not wait for it."""
    config = """
        [services.top]
        app = "main:app"
        depends_on = ["middle"]
        [services.middle]
        app = "slow:app"
        depends_on = [{ service = "bottom", condition = "started" }]
        [services.bottom]
        app = "slow:app"
        [services.aside]
        app = "main:app"
    """
    slow = """
        import asyncio, contextlib
        from fastapi import FastAPI

        @contextlib.asynccontextmanager
        async def lifespan(app):
            await asyncio.sleep(0.7)
            yield

        app = FastAPI(lifespan=lifespan)
    """
    daemon = servd(config, main_py=OK, slow_py=slow).ready()
    order = [(e["event"], e["service"]) for e in daemon.events if "service" in e]
    at = {event: index for index, event in enumerate(order)}
    assert at["service ready", "middle"] < at["service starting", "top"]
    assert at["service starting", "middle"] < at["service ready", "bottom"]
    assert at["service ready", "aside"] < at["service ready", "bottom"]
    assert daemon.stop() == 0


def test_an_app_that_cannot_be_imported_is_reported_with_its_own_traceback(servd: Servd) -> None:
    config = """
        [services.good]
        app = "main:app"
        listen = "127.0.0.1:0"
        [services.bad]
        app = "broken:app"
        restart.give_up_after = 1
        [services.needy]
        app = "main:app"
        depends_on = ["bad"]
    """
    daemon = servd(config, main_py=OK, broken_py="import helper\n", helper_py=BROKEN)
    failed = daemon.wait_for("service cannot start", service="bad")
    assert failed["exit_status"] == 3
    assert "ValueError: the model is not there" in failed["error"]
    assert any("helper.py" in line for line in failed["last_lines"])
    event = daemon.lines("cannot load broken:app")[0]
    assert event["exception"].startswith("Traceback")
    assert "broken.py" in event["exception"]
    assert "/servd/worker/" not in event["exception"]
    assert "importlib" not in event["exception"]
    daemon.ready()
    assert daemon.find("service waiting", service="needy", waiting_for="bad")
    assert daemon.get("good").text == "ok"
    assert daemon.find("service ready", service="needy") == []
    assert daemon.stop() == 0


def test_a_service_that_recovers_lets_its_dependents_start(servd: Servd) -> None:
    """The broken one is tried again with back-off; once it is mended, all comes up."""
    config = """
        [services.flaky]
        app = "flaky:app"
        timeouts = { startup = "6s" }  # as long as it may take once it is mended
        restart = { backoff = "100ms", backoff_max = "200ms" }
        [services.needy]
        app = "main:app"
        depends_on = ["flaky"]
    """
    daemon = servd(config, main_py=OK, flaky_py=BROKEN)
    daemon.wait_for("service cannot start", service="flaky")
    servd.write(flaky_py=OK)
    daemon.wait_for("service ready", service="needy")
    assert daemon.stop() == 0


def test_on_start_failure_exit_ends_the_daemon_with_3(servd: Servd) -> None:
    config = """
        [daemon]
        on_start_failure = "exit"
        [services.good]
        app = "main:app"
        [services.bad]
        app = "broken:app"
        restart.give_up_after = 1
    """
    daemon = servd(config, main_py=OK, broken_py=BROKEN)
    assert daemon.wait() == 3
    assert daemon.find("service cannot start", service="bad")
    assert daemon.leftovers() == []


def test_a_program_that_ends_at_once_was_never_ready(servd: Servd) -> None:
    services = [
        f"""
        [services.bad{number}]
        command = ["false"]
        ready = "{ready}"
        restart.give_up_after = 2
        [services.needy{number}]
        command = ["touch", "started"]
        depends_on = ["bad{number}"]
        """
        for number, ready in enumerate(("auto", "started", "30s"))
    ]
    daemon = servd(
        '[daemon]\non_start_failure = "exit"\n' + "".join(map(textwrap.dedent, services))
    )
    assert daemon.wait() == 3
    for number in range(3):
        assert daemon.find("service cannot start", service=f"bad{number}")
        assert not daemon.find("worker ready", service=f"bad{number}")
    assert not (servd.folder / "started").exists()


@pytest.mark.parametrize(
    ("policy", "program", "state", "ready"),
    [
        ("never", "exit 0", "exited", 200),
        ("on-failure", "exit 0", "exited", 200),
        ("never", "sleep 2; exit 1", "exited", 200),
        ("never", "exit 1", "failed", 503),
    ],
)
def test_what_ends_as_its_policy_wants_has_exited(
    servd: Servd, policy: str, program: str, state: str, ready: int
) -> None:
    config = f"""
        [services.brief]
        command = ["sh", "-c", "{program}"]
        restart.policy = "{policy}"
        ready = "1s"
        [services.web]
        app = "main:app"
    """
    daemon = servd(config, main_py=OK).ready()
    wait_until(lambda: daemon.service("brief")["state"] == state, f"it is {state}")
    assert daemon.service("brief")["state"] == state
    assert daemon.ask("GET", "/readyz").status_code == ready
    assert daemon.stop() == 0


def test_a_program_is_ready_when_it_has_lived_for_so_long(servd: Servd) -> None:
    config = """
        [services.slow]
        command = ["sleep", "100"]
        ready = "2s"
    """
    daemon = servd(config).ready()
    assert daemon.find("worker ready", service="slow")[0]["seconds"] >= 2
    assert daemon.stop() == 0


def test_a_lifespan_that_fails_is_a_failed_start(servd: Servd) -> None:
    config = """
        [services.bad]
        app = "bad:app"
        restart.give_up_after = 1
    """
    bad = """
        import contextlib
        from fastapi import FastAPI

        @contextlib.asynccontextmanager
        async def lifespan(app):
            raise RuntimeError("no database")
            yield

        app = FastAPI(lifespan=lifespan)
    """
    daemon = servd(config, bad_py=bad)
    failed = daemon.wait_for("service cannot start", service="bad")
    assert failed["exit_status"] == 3
    assert any("RuntimeError: no database" in line for line in failed["last_lines"])


def test_an_app_that_hangs_at_its_start_is_stopped_and_named(servd: Servd) -> None:
    config = """
        [services.stuck]
        app = "stuck:app"
        timeouts = { startup = "1s" }
    """
    daemon = servd(config, stuck_py="import time\ntime.sleep(1000)\n")
    failed = daemon.wait_for("service cannot start", service="stuck")
    assert "was not ready within 1 s" in failed["error"]
    assert daemon.stop() == 0


def test_a_variable_that_the_daemon_has_but_the_worker_lacks_is_named(servd: Servd) -> None:
    config = """
        [services.web]
        app = "needs:app"
        restart.give_up_after = 1
    """
    daemon = servd(
        config,
        environ={"MODEL_PATH": "/models"},
        needs_py='import os\nos.environ["MODEL_PATH"]\n',
    )
    failed = daemon.wait_for("service cannot start", service="web")
    assert 'env_passthrough = ["MODEL_PATH"]' in failed["error"]


@contextlib.contextmanager
def taken_port() -> Iterator[int]:
    """A port that another process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield int(taken.getsockname()[1])


def test_a_busy_port_is_named_and_the_rest_goes_on(servd: Servd) -> None:
    with taken_port() as port:
        config = f"""
            [services.busy]
            app = "main:app"
            listen = "127.0.0.1:{port}"
            [services.good]
            app = "main:app"
            listen = "127.0.0.1:0"
        """
        daemon = servd(config, main_py=OK).ready()
        failed = daemon.find("service cannot start", service="busy")[0]
        assert f"cannot listen on 127.0.0.1:{port}: the address is in use" in failed["error"]
        assert daemon.get("good").text == "ok"
        assert "Traceback" not in daemon.output
        assert daemon.service("busy")["state"] == "backoff"
        assert daemon.ask("GET", "/readyz").status_code == 503
    daemon.wait_for("service ready", service="busy")
    assert httpx.get(f"http://127.0.0.1:{port}/", timeout=DEADLINE).text == "ok"
    assert daemon.service("busy")["error"] is None


def test_a_folder_that_is_missing_is_waited_for(servd: Servd) -> None:
    config = """
        [services.web]
        app = "main:app"
        listen = "unix:later/web.sock"
        restart.backoff_max = "100ms"
        [services.needs]
        app = "main:app"
        depends_on = ["web"]
    """
    daemon = servd(config, main_py=OK).ready()
    daemon.wait_for("service backoff", service="web")
    (servd.folder / "later").mkdir()
    daemon.wait_for("service ready", service="web")
    daemon.wait_for("service ready", service="needs")
    assert daemon.stop() == 0


def test_a_reload_does_not_wait_for_the_pause_of_a_busy_address(servd: Servd) -> None:
    with taken_port() as port:
        config = f"""
            [services.busy]
            app = "main:app"
            listen = "127.0.0.1:{port}"
            restart = {{ backoff = "1h", backoff_max = "1h" }}
        """
        daemon = servd(config, main_py=OK).ready()
    daemon.reload()
    daemon.wait_for("service ready", service="busy")


@pytest.mark.parametrize("policy", ["never", "give_up_after"])
def test_an_address_is_not_waited_for_against_the_policy(servd: Servd, policy: str) -> None:
    key = "give_up_after = 2" if policy != "never" else 'policy = "never"'
    with taken_port() as port:
        config = f"""
            [services.busy]
            app = "main:app"
            listen = "127.0.0.1:{port}"
            restart = {{ {key}, backoff = "10ms" }}
        """
        daemon = servd(config, main_py=OK)
        daemon.wait_for("service failed", service="busy")
        assert daemon.stop() == 0


def test_mistakes_in_the_config_end_with_78_and_their_places(servd: Servd) -> None:
    daemon = servd('[services.web]\napp = "main:app"\nworkers = "many"\n', main_py=OK)
    assert daemon.wait() == 78
    assert "servd.toml:3:11: services.web.workers:" in daemon.output
    assert 'workers = "many"' in daemon.output
    assert "Traceback" not in daemon.output


def test_a_second_daemon_on_one_runtime_folder_is_refused_with_the_pid(servd: Servd) -> None:
    first = servd('[services.web]\napp = "main:app"\n', main_py=OK).ready()
    environ = {"SERVD_DAEMON__RUNTIME_DIR": str(first.runtime)}
    second = command("--config", "servd.toml", folder=servd.folder, environ=environ)
    assert second.returncode == 1
    assert f"another servd (pid {first.pid}) already uses" in second.stderr
    assert "Traceback" not in second.stderr
    assert first.process.poll() is None
    assert first.stop() == 0


def test_a_signal_to_stop_ends_a_start_that_is_under_way(servd: Servd) -> None:
    patient = 'timeouts = { startup = "1h", drain = "1h" }'
    slow = "import time\ntime.sleep(10000)\n"
    daemon = servd(f'[services.slow]\napp = "slow:app"\n{patient}\n', slow_py=slow)
    daemon.wait_for("service starting", service="slow")
    assert daemon.stop(signal.SIGINT) == 0


def test_no_more_workers_start_at_once_than_allowed(servd: Servd) -> None:
    config = """
        [daemon]
        start_concurrency = 1
        log = { level = "debug" }
        [services.web]
        app = "main:app"
        workers = 3
    """
    daemon = servd(config, main_py=OK).ready()
    steps = [e["event"] for e in daemon.events if e["event"] in ("worker started", "worker ready")]
    assert steps == ["worker started", "worker ready"] * 3


def test_a_killed_worker_is_replaced_at_once_and_the_others_go_on(servd: Servd) -> None:
    config = '[services.web]\napp = "main:app"\nlisten = "127.0.0.1:0"\nworkers = 2\n'
    daemon = servd(config, main_py=OK).ready()
    before = daemon.workers("web")
    import os

    os.kill(before[0], signal.SIGKILL)
    died = daemon.wait_for("worker exited", worker=0, pid=before[0])
    assert died["reason"] == "was killed by SIGKILL"
    assert died["next_action"] == "restarting"
    after = wait_until(
        lambda: now if len(now := daemon.workers("web")) == 2 else None,
        "a second worker",
    )
    assert after[1] == before[1]
    assert after[0] != before[0]
    assert httpx.get(daemon.url("web")).text == "ok"
    assert daemon.stop() == 0


def test_a_program_that_dies_at_once_is_started_with_growing_pauses(servd: Servd) -> None:
    config = """
        [services.dies]
        command = ["false"]
        restart = { backoff = "100ms", backoff_max = "2s" }
        timeouts = { startup = "1s" }
    """
    daemon = servd(config)
    wait_until(lambda: len(daemon.find("worker exited")) >= 6, "six deaths")
    died = daemon.find("worker exited")
    assert died[0]["exit_status"] == 1
    pauses = [float(e["next_action"].split()[2]) for e in died[1:5]]
    assert len(pauses) == 4
    assert all(longer > pause > 0 for pause, longer in itertools.pairwise(pauses)), pauses
    at = [datetime.fromisoformat(event["timestamp"]).timestamp() for event in died]
    for event, before, after in zip(died[1:5], at[1:5], at[2:6], strict=True):
        again = event["next_action"]
        pause = 0 if again == "restarting" else float(again.split()[2])
        assert after - before >= pause - 0.06, "it is started when the pause is over"
    assert daemon.stop() == 0


def test_giving_up_fails_a_service_and_never_restarting_lets_it_exit(servd: Servd) -> None:
    config = """
        [services.gives-up]
        command = ["false"]
        restart = { backoff = "10ms", give_up_after = 3 }
        [services.once]
        command = ["true"]
        restart = { policy = "never" }
    """
    daemon = servd(config).ready()
    daemon.wait_for("service failed", service="gives-up")
    assert len(daemon.find("worker exited", service="gives-up")) == 3
    daemon.wait_for("service exited", service="once")
    assert len(daemon.find("worker exited", service="once")) == 1


def test_a_daemon_without_stdin_stdout_and_stderr_serves(servd: Servd) -> None:
    """As some init systems start programs; its sockets must not take those descriptors."""
    import subprocess
    import sys

    servd.write(
        main_py=OK,
        servd_toml="""
            [daemon]
            log = { file = "servd.log" }
            [services.web]
            app = "main:app"
            listen = "127.0.0.1:0"
        """,
    )
    import os

    command_line = f'exec "{sys.executable}" -m servd <&- >&- 2>&-'
    environ = {**os.environ, "SERVD_DAEMON__RUNTIME_DIR": f"{servd._short}/c"}
    process = subprocess.Popen(["sh", "-c", command_line], cwd=servd.folder, env=environ)
    try:
        log = servd.folder / "servd.log"
        wait_until(lambda: log.exists() and "servd ready" in log.read_text(), "the start")
        address = next(
            json.loads(line)["address"]
            for line in log.read_text().splitlines()
            if "address" in line
        )
        assert httpx.get(address).text == "ok"
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0
    finally:
        process.kill()
        process.wait()


def test_a_daemon_with_few_descriptors_serves(servd: Servd) -> None:
    import resource

    servd.write(main_py=OK, servd_toml='[services.web]\napp = "main:app"\nlisten = "127.0.0.1:0"\n')
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (32, hard))
    try:
        daemon = servd.run("--config", "servd.toml")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert daemon.ready().get("web").text == "ok"
    assert daemon.stop() == 0


WAITING = """
    [services.web]
    app = "main:app"
    env = { WORD = "${file:word}" }
"""
"""A configuration that is being read for as long as nobody writes to the pipe `word`."""


def being_read(servd: Servd) -> tuple[ServdProcess, int]:
    """A daemon that reads its configuration, and the pipe by which that comes to an end."""
    os.mkfifo(servd.folder / "word")
    daemon = servd(WAITING, main_py=OK)

    def opened() -> int:
        try:
            return os.open(servd.folder / "word", os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return 0  # no reader yet
            raise

    pipe = wait_until(opened, "the configuration is opened")
    os.write(pipe, b"a ")
    process = psutil.Process(daemon.pid)

    def waits_for_more() -> bool:
        left = fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))
        return not any(left) and process.status() == psutil.STATUS_SLEEPING

    wait_until(waits_for_more, "the configuration is being read")
    return daemon, pipe


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_stop_ends_a_daemon_that_reads_its_configuration(
    servd: Servd, number: signal.Signals
) -> None:
    daemon, pipe = being_read(servd)
    daemon.send(number)
    assert daemon.wait() == 0
    os.close(pipe)
    assert daemon.output == ""


def test_other_signals_do_not_end_a_daemon_that_reads_its_configuration(
    servd: Servd,
) -> None:
    daemon, pipe = being_read(servd)
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        daemon.send(number)
    (servd.folder / "word").unlink()
    (servd.folder / "word").write_text("another")
    os.write(pipe, b"word")
    os.close(pipe)
    daemon.ready()
    assert daemon.wait_for("reload finished")["reason"] == "SIGHUP"
    assert daemon.stop() == 0
