"""Programs that start others: those are drained and ended too, and nothing of them is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil
import pytest

from support.harness import Servd, ServdProcess, alive, wait_until

SERVER = """
    import http.server, os, signal, sys, threading, time

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/slow":
                print("asked", flush=True)
                while not os.path.exists("answer"):
                    time.sleep(0.01)
            helper = open("helper").read().strip() if os.path.exists("helper") else "self"
            gone = open(f"/proc/{helper}/stat").read().split()[2] == "Z"
            self.send_response(500 if gone else 200)
            self.end_headers()
            self.wfile.write(str(os.getpid()).encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    server.daemon_threads = False  # what is in flight is answered

    def stop(*_):
        print("stopping", flush=True)
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    server.serve_forever()
"""
SCRIPT = """
    python3 server.py $1
"""
WITH_HELPER = """
    sleep 1000 &
    echo $! > helper
    python3 server.py $1
"""
LEAVES = """
    import os, signal, subprocess, sys, time
    mode = sys.argv[1]
    child = "import os, signal, sys, time; "
    if "deaf" in sys.argv:
        child += "signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    child += "open('child', 'w').write(str(os.getpid())); time.sleep(1000)"
    command = [sys.executable, "-c", child]
    if mode == "setsid":
        subprocess.Popen(command, start_new_session=True)
    elif mode == "double fork":
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.execv(sys.executable, command)
            os._exit(0)
        os.wait()
    else:
        subprocess.Popen(command)
    while not (os.path.exists("child") and os.path.getsize("child")):
        time.sleep(0.01)
    print("started", flush=True)
    if "dies" in sys.argv:
        os._exit(1)
    signal.pause()
"""


def child_of(servd: Servd) -> psutil.Process:
    file = servd.folder / "child"
    wait_until(lambda: file.exists() and file.read_text(), "the child has started")
    return psutil.Process(int(file.read_text()))


@pytest.mark.parametrize("script", [SCRIPT, WITH_HELPER], ids=["server", "server and helper"])
def test_a_start_script_without_exec_loses_no_request(servd: Servd, script: str) -> None:
    """Of a program that stops well on SIGTERM; the script itself dies of it at once, and what the
    program needs for its answer does not end before it.
    """
    config = """
        [services.files]
        command = ["sh", "run.sh", "{port}"]
    """
    daemon = servd(config, run_sh=script, server_py=SERVER).ready()
    address = daemon.status()["services"][0]["listen"][0]
    client = "import httpx, sys; print(httpx.get(sys.argv[1], timeout=90).status_code)"
    asking = subprocess.Popen(
        [sys.executable, "-c", client, f"{address}/slow"], stdout=subprocess.PIPE, text=True
    )
    daemon.wait_for_line("asked", service="files")
    restart = subprocess.Popen(
        [sys.executable, "-m", "servd", "restart", "files"],
        cwd=servd.folder,
        env={**os.environ, **daemon.environ},
    )
    daemon.wait_for_line("stopping", service="files")
    assert daemon.find("worker left processes", service="files")
    (servd.folder / "answer").touch()
    assert asking.communicate()[0] == "200\n"
    assert restart.wait() == 0
    assert daemon.stop() == 0
    assert daemon.find("servd stopped", graceful=True)


@pytest.mark.parametrize("mode", ["child", "setsid", "double fork"])
@pytest.mark.parametrize("deaf", ["", "deaf"])
def test_what_a_program_leaves_ends_with_it(servd: Servd, mode: str, deaf: str) -> None:
    config = f"""
        [services.leaves]
        command = ["python3", "leaves.py", "{mode}", "{deaf}"]
        timeouts.drain = "1s"
        restart.policy = "never"
    """
    daemon = servd(config, leaves_py=LEAVES).ready()
    child = child_of(servd)
    daemon.act("leaves", "stop")
    wait_until(lambda: daemon.service("leaves")["state"] == "stopped", "it has stopped")
    assert alive([child]) == []
    (left,) = daemon.find("worker left processes", service="leaves")
    assert f"({child.pid})" in left["processes"][0]
    assert daemon.stop() == 0


@pytest.mark.parametrize("mode", ["child", "setsid", "double fork"])
def test_what_a_dead_program_leaves_is_ended_before_it_is_started_again(
    servd: Servd, mode: str
) -> None:
    config = f"""
        [services.leaves]
        command = ["python3", "leaves.py", "{mode}", "deaf", "dies"]
        timeouts.drain = "1s"
        restart.give_up_after = 1
    """
    daemon = servd(config, leaves_py=LEAVES)
    child = child_of(servd)
    daemon.wait_for("worker exited", service="leaves")
    assert alive([child]) == []
    assert daemon.stop() == 0


def survivors(daemon: ServdProcess, child: psutil.Process) -> list[psutil.Process]:
    daemon.remember()
    return alive([child, *daemon.known.values()])


@pytest.mark.parametrize("kind", ["app", "command"])
@pytest.mark.parametrize("deaf", ["", "deaf"])
def test_nothing_outlives_a_killed_daemon_for_longer_than_the_drain(
    servd: Servd, kind: str, deaf: str
) -> None:
    app = f"""
        import subprocess, sys
        subprocess.Popen([sys.executable, "leaves.py", "child", "{deaf}"])

        async def app(scope, receive, send):
            raise NotImplementedError
    """
    what = (
        'app = "main:app"\nuvicorn.lifespan = "off"'
        if kind == "app"
        else (f'command = ["sh", "-c", "python3 leaves.py child {deaf}; exit 0"]')
    )
    config = f'[services.leaves]\n{what}\ntimeouts = {{ drain = "1s", shutdown = "0s" }}\n'
    daemon = servd(config, leaves_py=LEAVES, main_py=app).ready()
    child = child_of(servd)
    daemon.remember()
    daemon.send(signal.SIGKILL)
    daemon.wait()
    wait_until(lambda: not survivors(daemon, child), "everything has ended")


def test_the_next_daemon_ends_what_a_dead_worker_of_a_killed_one_left(servd: Servd) -> None:
    """Everything of the first one is killed but the child: nobody else could end it."""
    config = """
        [services.leaves]
        command = ["sh", "-c", "python3 leaves.py child deaf; exit 0"]
        timeouts.drain = "1s"
    """
    first = servd(config, leaves_py=LEAVES).ready()
    child = child_of(servd)
    first.remember()
    doomed = [p for p in first.known.values() if p.pid != child.pid]
    first.send(signal.SIGSTOP)
    for process in [psutil.Process(first.pid), *doomed]:
        process.send_signal(signal.SIGKILL)
    first.wait()
    assert alive([child])
    (servd.folder / "child").unlink()
    environ = {"SERVD_DAEMON__RUNTIME_DIR": str(first.runtime)}
    second = servd.run("--config", "servd.toml", environ=environ).ready()
    second.runtime = first.runtime
    wait_until(lambda: not alive([child]), "the child has been ended")
    assert second.stop() == 0


def test_services_inherit_no_ignored_and_no_blocked_signal(servd: Servd) -> None:
    """From a daemon that a shell has started with `&`, and with a mask of its own."""
    shows = """
        import signal
        ignored = [s.name for s in signal.valid_signals() if signal.getsignal(s) == signal.SIG_IGN]
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        print("ignored", sorted(set(ignored) - {"SIGPIPE", "SIGXFSZ"}), sorted(blocked), flush=True)
        signal.pause()
    """
    kept = {
        number: signal.signal(number, signal.SIG_IGN)
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTTIN, signal.SIGUSR1)
    }
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2, signal.SIGTERM})
    try:
        daemon = servd('[services.shows]\ncommand = ["python3", "shows.py"]', shows_py=shows)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in kept.items():
            signal.signal(number, handler)
    daemon.wait_for_line("ignored [] []", service="shows")
    for number in (signal.SIGTTIN, signal.SIGTTOU, signal.SIGQUIT):
        daemon.send(number)
    assert daemon.ask("GET", "/livez").status_code == 200
    assert daemon.stop() == 0


DEAF = """
    import os, signal, time

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("up", flush=True)
    while not os.path.exists("stop"):
        time.sleep(0.01)
"""


def test_a_stop_command_is_run_instead_of_the_signal(servd: Servd) -> None:
    config = """
        [services.deaf]
        command = ["python3", "deaf.py"]
        stop_command = ["sh", "-c", "echo $MAINPID > stop"]
        timeouts.drain = "10m"
    """
    servd.write(deaf_py=DEAF)
    daemon = servd(config.replace("$MAINPID", "$$MAINPID")).ready()
    daemon.wait_for_line("up", service="deaf")
    (pid,) = daemon.pids("deaf")
    assert daemon.stop() == 0
    assert (servd.folder / "stop").read_text() == f"{pid}\n"
    assert daemon.find("servd stopped", graceful=True)


def test_where_a_stop_command_fails_the_signal_comes_after_all(servd: Servd) -> None:
    config = """
        [services.sleeps]
        command = ["sleep", "1000"]
        stop_command = ["false"]
        timeouts.drain = "10m"
    """
    daemon = servd(config).ready()
    assert daemon.stop() == 0
    (failed,) = daemon.find("stop command failed", service="sleeps")
    assert failed["error"] == "false exited with status 1"
