"""`servd.serve` and the pytest fixture: real daemons, started from this process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import httpx
import psutil
import pytest

import servd
from servd.embed import arguments

from support.harness import DEADLINE, alive, wait_until

APP = """
    import os

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        body = os.environ.get("V", "none").encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
"""
CONFIG = """
    [services.web]
    app = "main:app"
    listen = "127.0.0.1:0"
    env = {{ V = "{}" }}
    depends_on = ["inner"]
    [services.inner]
    app = "main:app"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(textwrap.dedent(APP))
    (tmp_path / "servd.toml").write_text(textwrap.dedent(CONFIG.format("one")))
    return tmp_path


def test_a_target_is_served_with_the_options_of_the_command_line(folder: Path) -> None:
    with servd.serve(
        "main:app", threaded=True, port=0, host="127.0.0.1", workers=2, working_dir=str(folder)
    ) as server:
        assert httpx.get(server.url()).text == "none"
        (service,) = server.status()["services"]
        assert service["workers"] == {"desired": 2, "ready": 2}
        assert '"servd ready"' in server.log
        daemon = psutil.Process(server.pid)
        family = [daemon, *daemon.children(recursive=True)]
    assert alive(family) == []


def test_a_configuration_is_served_reloaded_and_stopped(folder: Path) -> None:
    server = servd.serve(folder / "servd.toml", threaded=True)
    try:
        assert httpx.get(server.url("web")).text == "one"
        (folder / "servd.toml").write_text(textwrap.dedent(CONFIG.format("two")))
        assert server.reload()["outcome"] in ("applied", "unchanged")  # it watches, too
        assert httpx.get(server.url("web")).text == "two"
        (folder / "servd.toml").write_text(textwrap.dedent(CONFIG.format("two") + "wrkers = 2"))
        with pytest.raises(servd.ServdError, match='did you mean "workers"'):
            server.reload()
        assert httpx.get(server.url("web")).text == "two"
        assert server.url() == server.url("web") == server.url, "the only one that listens outside"
        with pytest.raises(servd.ServdError, match="has no `listen` address"):
            server.url("inner")
        with pytest.raises(
            servd.ServdError, match=r'unknown service "nosuch"\. Services: inner, web'
        ):
            server.url("nosuch")
    finally:
        assert server.stop() == 0
    assert server.stop() == 0, "again, to no effect"
    assert server.log == ""


def test_several_run_at_a_time_and_nothing_of_this_process_is_touched(folder: Path) -> None:
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    threads = threading.active_count()
    with (
        servd.serve(str(folder / "servd.toml"), threaded=True) as one,
        servd.serve(str(folder / "servd.toml"), threaded=True) as other,
    ):
        assert one.url("web") != other.url("web")
        assert httpx.get(one.url("web")).text == httpx.get(other.url("web")).text == "one"
        assert threading.active_count() == threads
        assert {number: signal.getsignal(number) for number in before} == before


def test_what_does_not_start_is_raised_with_its_last_words(folder: Path) -> None:
    with pytest.raises(servd.StartError, match="nosuch"):
        servd.serve("nosuch:app", threaded=True, port=0, working_dir=str(folder))
    (folder / "servd.toml").write_text("this is no TOML")
    with pytest.raises(servd.StartError, match=r"servd.toml:1:"):
        servd.serve(folder / "servd.toml", threaded=True)


def test_it_ends_with_the_process_that_started_it_however_that_ends(folder: Path) -> None:
    code = """
        import servd, sys, time
        server = servd.serve("servd.toml", threaded=True)
        print(server.pid, flush=True)
        time.sleep(1000)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=folder, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    daemon = psutil.Process(int(process.stdout.readline()))
    family = [daemon, *daemon.children(recursive=True)]
    assert len(family) > 2
    process.kill()
    process.communicate()
    wait_until(lambda: not alive(family), "all of it has ended")


def test_in_the_foreground_it_returns_when_it_has_ended(folder: Path) -> None:
    code = 'import servd; server = servd.serve("servd.toml"); print("over", server.wait())'
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    while '"servd ready"' not in (line := process.stderr.readline()):
        assert line
    os.killpg(process.pid, signal.SIGINT)  # Ctrl-C goes to everything on the terminal
    said, _ = process.communicate(timeout=DEADLINE)
    assert said == "over 0\n"


def test_the_keywords_are_those_of_the_command_line() -> None:
    assert arguments("a:b", {"port": 1, "ssl_certfile": "c", "development": True}) == [
        "serve", "a:b", "--port", "1", "--ssl-certfile", "c", "--development",
    ]  # fmt: skip
    assert arguments("a:b", {"reload": False, "timeout": None}) == ["serve", "a:b"]
    assert arguments("conf.yaml", {}) == ["--config", "conf.yaml"]
    with pytest.raises(servd.ServdError, match="options need a target, not a configuration: port"):
        arguments("conf.yaml", {"port": 1})
    with pytest.raises(servd.ServdError, match="missing target"):
        servd.serve()


def test_the_fixture_is_there_wherever_servd_is_installed(folder: Path) -> None:
    (folder / "test_it.py").write_text(
        textwrap.dedent("""
            import urllib.request

            def test_the_app(servd):
                first = servd("main:app", port=0, working_dir=".")
                other = servd("servd.toml")
                for url in (first.url(), other.url("web")):
                    assert urllib.request.urlopen(url).status == 200
        """)
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider"],
        cwd=folder, capture_output=True, text=True, timeout=DEADLINE,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_what_serve_does_not_have_is_an_unexpected_keyword() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'wrokers'"):
        servd.serve("main:app", wrokers=2)
    with pytest.raises(TypeError, match="expected a configuration or a target, got int"):
        servd.serve(5)
