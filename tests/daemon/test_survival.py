"""What happens when the daemon is killed, and when it is the first process of a container."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading

import httpx
import psutil
import pytest

from support.harness import DEADLINE, Servd, ServdProcess, alive, free_port, wait_until

APP = """
    import asyncio, os

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        while scope["path"] == "/slow" and not os.path.exists("go"):
            await asyncio.sleep(0.01)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
"""
STUBBORN = """
    import signal, socket, sys, time

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    time.sleep(1000)
"""


def test_the_next_daemon_has_the_addresses_and_requests_in_flight_are_answered(
    servd: Servd,
) -> None:
    port = free_port()
    config = f"""
        [services.web]
        app = "main:app"
        listen = "127.0.0.1:{port}"
        workers = 2
        timeouts = {{ drain = "1h" }}
    """
    first = servd(config, main_py=APP).ready()
    workers = first.descendants()
    answers: list[httpx.Response] = []

    def ask() -> None:
        answers.append(httpx.get(f"http://127.0.0.1:{port}/slow", timeout=DEADLINE))

    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in asking:
        thread.start()
    wait_until(lambda: first.service("web")["processes"], "there are workers")
    labels = {"service": "web"}
    wait_until(
        lambda: first.metric("servd_requests_in_flight", **labels) == 4, "four are in flight"
    )
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    second = started_again(servd, first)
    assert httpx.get(f"http://127.0.0.1:{port}/").status_code == 200
    second.wait_for("orphaned workers draining")
    (servd.folder / "go").touch()
    for thread in asking:
        thread.join()
    assert [answer.status_code for answer in answers] == [200] * 4
    wait_until(lambda: not alive(workers), "the old workers have ended")
    second.wait_for("orphaned workers exited")
    assert second.stop() == 0
    assert second.leftovers() == []


def started_again(servd: Servd, first: ServdProcess) -> ServdProcess:
    """Another daemon, in the runtime folder of the one before."""
    environ = {"SERVD_DAEMON__RUNTIME_DIR": str(first.runtime)}
    second = servd.run("--config", "servd.toml", environ=environ)
    second.runtime = first.runtime
    return second.ready()


def stubborn(drain: str) -> str:
    """A configuration with a program that does not end by itself."""
    port = free_port()
    return f"""
        [services.stubborn]
        command = ["{sys.executable}", "stubborn.py", "{{port}}"]
        listen = "127.0.0.1:{port}"
        timeouts = {{ drain = "{drain}" }}
    """


def guardians_of(daemon: ServdProcess) -> list[psutil.Process]:
    """The process that ends what programs leave if the daemon is killed."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any("guardian.py" in word for word in process.info["cmdline"] or ())
        and any(str(daemon.runtime) in word for word in process.info["cmdline"])
    ]


def test_a_program_that_does_not_end_by_itself_is_ended_by_its_guardian(servd: Servd) -> None:
    daemon = servd(stubborn(drain="100ms"), stubborn_py=STUBBORN).ready()
    process = psutil.Process(daemon.pids("stubborn")[0])
    guardians = wait_until(lambda: guardians_of(daemon), "it has a guardian")
    os.kill(daemon.pid, signal.SIGKILL)
    daemon.wait()
    wait_until(lambda: not alive([process, *guardians]), "everything has ended")


def test_a_program_that_does_not_end_by_itself_is_ended_by_the_next_daemon(servd: Servd) -> None:
    first = servd(stubborn(drain="100ms"), stubborn_py=STUBBORN).ready()
    (pid,) = first.pids("stubborn")
    process = psutil.Process(pid)
    for guardian in wait_until(lambda: guardians_of(first), "it has a guardian"):
        guardian.kill()
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert alive([process])
    second = started_again(servd, first)
    assert not alive([process])
    assert second.find("orphaned workers killed", pids=[pid])
    assert second.pids("stubborn") != [pid]
    second.stop()


def test_a_stop_ends_what_a_killed_daemon_has_left(servd: Servd) -> None:
    first = servd(stubborn(drain="1h"), stubborn_py=STUBBORN).ready()
    process = psutil.Process(first.pids("stubborn")[0])
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    quiet = '[services.other]\ncommand = ["sleep", "1000"]\n'
    servd.write(servd_toml=quiet)
    second = started_again(servd, first)
    assert alive([process])
    assert second.stop() == 0
    assert not alive([process])


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare"
)
def test_as_the_first_process_it_reaps_orphans_and_ends_gracefully(servd: Servd) -> None:
    """As in a container without an init of its own."""
    orphan = """
        import os, time

        if os.fork() == 0:
            parent = os.getpid()
            if os.fork() == 0:
                while os.getppid() == parent:
                    time.sleep(0.01)
            os._exit(0)
        os.wait()
        open("orphaned", "w").close()
        time.sleep(1000)
    """
    config = f"""
        [daemon]
        runtime_dir = "{servd.folder}/run"
        [services.parent]
        command = ["{sys.executable}", "orphan.py"]
        [services.web]
        app = "main:app"
        listen = "127.0.0.1:{free_port()}"
    """
    servd.write(servd_toml=config, orphan_py=orphan, main_py=APP)
    log = servd.folder / "log"
    with open(log, "wb") as written:
        process = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child",
             sys.executable, "-m", "servd", "--config", "servd.toml"],
            cwd=servd.folder, stdin=subprocess.DEVNULL, stdout=written, stderr=written,
        )  # fmt: skip
    try:
        wait_until(lambda: '"servd ready"' in log.read_text(), "it is ready")
        (daemon,) = psutil.Process(process.pid).children()
        wait_until((servd.folder / "orphaned").exists, "there is an orphan")

        def adopted() -> list[psutil.Process]:
            return [child for child in daemon.children() if "orphan.py" in " ".join(names(child))]

        wait_until(lambda: len(adopted()) == 1, "the orphan has ended")
        wait_until(lambda: not dead(daemon), "and was reaped")
        daemon.send_signal(signal.SIGUSR2)
        wait_until(lambda: "restart the container" in log.read_text(), "it cannot be replaced")
        daemon.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0
        assert '"graceful": true' in log.read_text()
    finally:
        process.kill()
        process.wait()


def names(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def dead(daemon: psutil.Process) -> list[psutil.Process]:
    """Children that wait to be reaped."""
    return [c for c in daemon.children() if c.status() == psutil.STATUS_ZOMBIE]
