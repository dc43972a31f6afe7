"""`servd serve`, and its logs and signals as seen from outside."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil

from support.harness import DEADLINE, Servd, wait_until

APP = """
    import os

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": os.environ.get("MINE", "-").encode()})
"""


def test_serve_runs_one_service_with_the_whole_environment(servd: Servd) -> None:
    servd.write(main_py=APP)
    daemon = servd.run(
        "serve", "main:app", "--host=127.0.0.1", "--port=0", "--workers=2", environ={"MINE": "yes"}
    ).ready()
    assert daemon.get("main").text == "yes"
    assert len(daemon.workers("main")) == 2
    assert daemon.stop() == 0


def test_serve_ends_with_3_when_its_app_cannot_start(servd: Servd) -> None:
    servd.write(main_py="import gone\n")
    environ = {"SERVD_DEFAULTS__TIMEOUTS__STARTUP": "1s"}
    daemon = servd.run("serve", "main:app", "--host=127.0.0.1", "--port=0", environ=environ)
    assert daemon.wait() == 3
    assert "No module named 'gone'" in daemon.output
    assert daemon.leftovers() == []


def test_two_calls_of_serve_run_side_by_side(servd: Servd) -> None:
    """Each has its own runtime folder, although they serve the same target."""
    servd.write(main_py=APP)
    arguments = ("serve", "main:app", "--host=127.0.0.1", "--port=0")
    environ = {"SERVD_DAEMON__RUNTIME_DIR": "", "TMPDIR": "/tmp", "XDG_RUNTIME_DIR": ""}
    one = servd.run(*arguments, environ=environ).ready()
    two = servd.run(*arguments, environ=environ).ready()
    folders = {d.find("servd started")[0]["runtime_dir"] for d in (one, two)}
    assert len(folders) == 2
    assert one.get("main").status_code == two.get("main").status_code == 200
    assert (one.stop(), two.stop()) == (0, 0)
    assert not any(os.path.exists(folder) for folder in folders)


def test_circus_opens_no_endpoint_of_its_own(servd: Servd) -> None:
    """The daemon listens only on the configured addresses of its services."""
    daemon = servd(
        '[services.web]\napp = "main:app"\nlisten = "127.0.0.1:0"\n', main_py=APP
    ).ready()
    process = psutil.Process(daemon.pid)
    listening = [c for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    port = int(daemon.url("web").rpartition(":")[2])
    assert [c.laddr.port for c in listening] == [port]
    unix = {c.laddr for c in process.net_connections("unix") if c.laddr}
    notify = {path for path in unix if str(path).startswith(f"{daemon.runtime}/n/")}
    assert len(unix - notify) == 1, unix  # the admin socket, under the name that it was bound by
    # the loop, the log and one for files: ZeroMQ would have threads of its own
    assert len(process.threads()) == 3
    tasks = Path(f"/proc/{daemon.pid}/task").glob("*/comm")
    assert not [name for task in tasks if (name := task.read_text()).startswith("ZMQ")]


def test_on_a_terminal_events_are_lines_for_people(servd: Servd) -> None:
    servd.write(main_py=APP, servd_toml='[services.web]\napp = "main:app"\n')
    ours, theirs = pty.openpty()
    environ = {**os.environ, "SERVD_DAEMON__RUNTIME_DIR": f"{servd._short}/t"}
    process = subprocess.Popen(
        [sys.executable, "-m", "servd"], cwd=servd.folder, stdin=theirs, stdout=theirs,
        stderr=theirs, env=environ, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    seen = bytearray()

    def read() -> None:
        try:
            while chunk := os.read(ours, 65536):
                seen.extend(chunk)
        except OSError:
            pass  # the terminal's other end is closed

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        wait_until(lambda: b"servd ready" in seen, "the start on a terminal")
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 0
    finally:
        process.kill()
        process.wait()
    reader.join(DEADLINE)
    os.close(ours)
    text = seen.decode()
    assert "worker ready" in text
    assert '"event"' not in text
    assert "service" in text


def test_a_log_that_nobody_reads_stops_nothing(servd: Servd) -> None:
    """The daemon's stderr is a full pipe: it drops lines and still answers requests."""
    servd.write(
        main_py=APP.replace("assert", "print('x' * 1000); assert"),
        servd_toml='[services.web]\napp = "main:app"\nlisten = "unix:web.sock"\n',
    )
    import httpx

    reading, writing = os.pipe()
    environ = {**os.environ, "SERVD_DAEMON__RUNTIME_DIR": f"{servd._short}/p"}
    process = subprocess.Popen(
        [sys.executable, "-m", "servd"], cwd=servd.folder, stderr=writing, env=environ
    )
    try:
        wait_until((servd.folder / "web.sock").exists, "the socket")
        transport = httpx.HTTPTransport(uds=str(servd.folder / "web.sock"))
        with httpx.Client(transport=transport, timeout=DEADLINE) as client:
            for _ in range(300):
                assert client.get("http://web/").status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0
    finally:
        process.kill()
        process.wait()
        os.close(reading)
        os.close(writing)


def test_the_shutdown_timeout_caps_a_stop(servd: Servd) -> None:
    config = """
        [daemon]
        shutdown_timeout = "1s"
        [services.stubborn]
        command = ["sh", "stubborn.sh"]
    """
    stubborn = "trap '' TERM\necho up\nwhile :; do sleep 0.05; done\n"
    daemon = servd(config, stubborn_sh=stubborn).ready()
    daemon.wait_for_line("up")
    assert daemon.stop() == 0
    assert daemon.find("shutdown timeout: killing remaining workers")


def test_an_app_that_fails_at_its_startup_ends_it_after_one_attempt(servd: Servd) -> None:
    code = """
        async def app(scope, receive, send):
            assert scope["type"] == "lifespan"
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "no database"})
    """
    servd.write(main_py=code)
    daemon = servd.run("serve", "main:app", "--host=127.0.0.1", "--port=0")
    assert daemon.wait() == 3
    assert len(daemon.lines("worker started")) == 1
    failed = daemon.wait_for("service cannot start")
    assert failed["error"] == "worker 0: the app failed at its startup"
    assert any("no database" in line for line in failed["last_lines"])
