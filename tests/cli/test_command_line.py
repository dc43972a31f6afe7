"""The commands against a running daemon, as a user runs them."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from support.apps import HOLD, PLAIN, SLEEP, plain, web
from support.harness import DEADLINE, Servd, ServdProcess, command, wait_until
from support.terminal import terminal

ACTS = (["reload"], ["restart", "web"], ["restart", "--all"], ["start", "web"], ["stop", "web"],
        ["scale", "web=2"])  # fmt: skip
NOT_RUNNING = r"servd: servd is not running \(no answer at .*\)\. Start it with `servd`\.\n"
LOOKS = (["status"], ["status", "--watch"], ["top"], ["logs"], ["logs", "-f"], ["events", "-f"],
         ["dashboard", "--no-browser"])  # fmt: skip


def test_each_command_without_a_daemon_is_one_line_and_69(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("app = None\n")
    (tmp_path / "servd.toml").write_text('[services.web]\napp = "main:app"\n')
    for arguments in (*ACTS, *LOOKS, ["status", "--json"], ["reload", "--json"]):
        done = command(*arguments, folder=tmp_path)
        assert done.returncode == 69, (arguments, done.stderr)
        assert done.stdout == ""
        assert re.fullmatch(NOT_RUNNING, done.stderr)


def test_an_act_ends_with_one_line_of_outcome_and_its_exit_status(servd: Servd) -> None:
    daemon = servd(web(1), main_py=PLAIN).ready()
    for arguments, outcome in (
        (["scale", "web=3"], r"applied in [\d.]+ s: ~ web scale 2 -> 3\n"),
        (["stop", "web"], r"applied in [\d.]+ s: ~ web scale 3 -> 0\n"),
        (["start", "web"], r"applied in [\d.]+ s: ~ web scale 0 -> 3\n"),
        (["restart", "web"], r"applied in [\d.]+ s: ~ web roll\n"),
        (["start", "web"], r"unchanged: .*\n"),
        (["reload"], r"No changes since .*Z\. .*: run `servd restart NAME`\.\n"),
    ):
        done = daemon.cli(*arguments)
        assert done.returncode == 0, done.stderr
        assert re.fullmatch(outcome, done.stdout), (arguments, done.stdout)
    done = daemon.cli("scale", "web=1", "--json")
    assert json.loads(done.stdout)["outcome"] == "applied"
    assert done.stderr == "" or "web worker" in done.stderr


def test_a_long_act_shows_which_worker_starts_is_ready_and_drains(servd: Servd) -> None:
    daemon = servd(web(1, workers=1), main_py=plain("time.sleep(0.6)")).ready()
    done = daemon.cli("restart", "web", "--wait-drained")
    for line in ("started: new generation", r"ready after [\d.]+ s"):
        assert re.search(rf"^  web worker 0 \(generation 2\) {line}$", done.stderr, re.MULTILINE)
    old = r"^  web worker 0 \(generation 1\) draining: replaced by generation 2$"
    assert re.search(old, done.stderr, re.MULTILINE)
    assert done.stdout.count("\n") == 1
    assert daemon.cli("restart", "web", "--quiet").stderr == ""


def test_what_fails_says_why_with_the_last_words(servd: Servd) -> None:
    daemon = servd(web(1, workers=1), main_py=PLAIN).ready()
    (servd.folder / "main.py").write_text("import nothing_of_that_name")
    done = daemon.cli("restart", "web")
    assert (done.returncode, done.stdout) == (1, "")
    assert "rolled back: web: worker 0: " in done.stderr
    assert "nothing_of_that_name" in done.stderr
    assert done.stderr.endswith("The previous configuration is still running.\n")
    assert "Traceback" not in done.stderr.split("rolled back")[0]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["restart", "wbe"], 1, 'unknown service "wbe"'),
        (["scale", "wbe=1"], 1, 'unknown service "wbe"'),
        (["status", "wbe"], 1, 'unknown service "wbe". Services: back, web'),
        (["stop", "back"], 1, "web depends on back"),
        (["scale", "web"], 2, "expected NAME=N"),
        (["scale", "web=-1"], 2, "expected NAME=N"),
        (["scale", "=1"], 2, "service name is missing"),
        (["restart"], 2, "expected either service names or --all"),
        (["restart", "web", "--all"], 2, "expected either service names or --all"),
        (["reload", "--timeout", "soon"], 2, "is not a duration"),
        (["status", "--admin", "ftp://x"], 2, "expected unix:PATH or http://HOST:PORT"),
        (["restart", "web", "--admin", "http://127.0.0.1:abc"], 2, "expected unix:PATH or http:"),
        (["restart", "web", "--admin", "http://127.0.0.1:99999"], 2, "expected unix:PATH or http:"),
    ],
)
def test_a_wrong_call_says_what_would_be_right(
    servd: Servd, arguments: list[str], status: int, said: str
) -> None:
    both = web(1, extra='depends_on = ["back"]') + f"\n[services.back]\n{SLEEP}\n"
    daemon = servd(both, main_py=PLAIN).ready()
    done = daemon.cli(*arguments)
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_stop_that_others_forbid_says_how_to_stop_them_too(servd: Servd) -> None:
    both = web(1, extra='depends_on = ["back"]') + f"\n[services.back]\n{SLEEP}\n"
    daemon = servd(both, main_py=PLAIN).ready()
    assert "--cascade" in daemon.cli("stop", "back").stderr
    assert daemon.cli("stop", "back", "--cascade").returncode == 0
    shown = daemon.cli("status").stdout
    assert re.search(r"^web +stopped +0/0", shown, re.MULTILINE)
    assert "0 workers (set manually; the config says 2)" in shown
    shown = daemon.cli("plan").stdout
    assert (
        "! web: 0 workers (set manually; the config says 2), kept until the config changes it"
        in shown
    )


@pytest.mark.parametrize("status", [200, 421, 500])
@pytest.mark.parametrize("body", [b"hello", b"[]", b'{"hello": "world"}'])
def test_an_answer_that_is_not_of_servd_is_one_line(
    tmp_path: Path, status: int, body: bytes
) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = f"http://127.0.0.1:{server.server_address[1]}"
        (tmp_path / "servd.toml").write_text(f"[services.job]\n{SLEEP}\n")
        for arguments in (["status"], ["top", "--once"], ["logs", "job"], ["events"], ["plan"],
                          ["reload"], ["dashboard", "--no-browser"]):  # fmt: skip
            done = command(*arguments, "--admin", place, folder=tmp_path)
            assert (done.returncode, done.stdout) == (1, ""), (arguments, done)
            assert done.stderr.count("\n") == 1, (arguments, done.stderr)
        server.shutdown()


def test_a_token_that_no_header_can_carry_is_a_wrong_call(tmp_path: Path) -> None:
    for token in ("\u20ac", "a\nb"):
        done = command(
            "restart", "--all", "--admin", "http://127.0.0.1:1",
            folder=tmp_path, environ={"SERVD_ADMIN_TOKEN": token},
        )  # fmt: skip
        assert done.returncode == 2
        assert "a header cannot carry" in done.stderr


def test_a_timeout_ends_the_waiting_and_not_the_act(servd: Servd) -> None:
    daemon = servd(web(1, workers=1), main_py=plain(HOLD)).ready()
    (servd.folder / "hold").touch()
    done = daemon.cli("restart", "web", "--timeout", "4s")
    assert done.returncode == 1
    assert "not finished after 4 s; it continues (see `servd status`)" in done.stderr
    assert not daemon.find("reload finished")
    (servd.folder / "hold").unlink()
    daemon.wait_for("reload finished", outcome="applied")


def test_the_status_fits_80_columns_however_long_the_names(servd: Servd) -> None:
    name = "a-service-with-a-name-that-is-about-as-long-as-they-may-become"
    config = web(1, listen="unix:a-socket-with-a-long-name.sock").replace(
        "services.web", f"services.{name}"
    )
    config += f'\n[services.job]\n{SLEEP}\ndepends_on = ["{name}"]\n'
    daemon = servd(config, main_py=PLAIN).ready()
    for arguments in (["status"], ["status", "job"], ["top"]):
        shown = daemon.cli(*arguments, COLUMNS="80").stdout
        assert max(map(len, shown.splitlines())) <= 80, shown
    assert "  WORKER      PID" in daemon.cli("status", "job").stdout


def test_status_and_top_show_requests_and_latencies(servd: Servd) -> None:
    daemon = servd(web(1), main_py=PLAIN.replace("asyncio.sleep(1)", "boom()")).ready()

    def measured(path: str = "/") -> bool:
        for _ in range(20):
            daemon.get("web", path)
        service = daemon.service("web")
        return bool(service["rps"] and service["p99_ms"])

    wait_until(measured, "requests are seen")
    service = daemon.service("web")
    assert service["requests"] >= 20
    assert 0 < service["p50_ms"] <= service["p99_ms"]
    assert sum(p["requests"] for p in service["processes"]) == service["requests"]
    shown = daemon.cli("top", "--once").stdout
    assert re.search(r"^web +ready +2/2 +\d+ (s|min) +[\d.]+ +0 +[\d.]+", shown, re.MULTILINE)
    assert (service["rps_4xx"], service["rps_5xx"], service["error"]) == (0.0, 0.0, None)

    wait_until(
        lambda: measured("/slow") and "requests failed with 5xx" in str(daemon.service("web")),
        "most answers are errors",
    )
    for command_line in (["status"], ["status", "web"], ["top", "--once"]):
        shown = daemon.cli(*command_line).stdout
        assert re.search(r"answers: [\d.]+ 5xx/s", shown)
        assert re.search(r"\d+ of \d+ recent requests", shown)


def test_top_draws_until_q_and_sorts_on_a_key(servd: Servd) -> None:
    two = web(1) + f"\n[services.another]\n{SLEEP}\n"
    daemon = servd(two, main_py=PLAIN).ready()
    with terminal(daemon, "top", "--interval", "0.2") as top:
        top.waits_for("s sort: problems")
        assert top.shows("WORKER")
        top.press("n")
        top.waits_for("s sort: name")
        top.press("q")
        assert top.status() == 0


def test_status_watch_goes_on_until_ctrl_c(servd: Servd) -> None:
    daemon = servd(web(1), main_py=PLAIN).ready()
    with terminal(daemon, "status", "--watch") as status:
        wait_until(lambda: status.shows("2/2"), "it shows")
        daemon.act("web", "scale", workers=3)
        wait_until(lambda: status.shows("3/3"), "it shows what has changed")
        status.press("\x03")
        assert status.status() == 0
    assert "Traceback" not in status.screen


def test_logs_and_events_can_be_followed_until_ctrl_c(servd: Servd) -> None:
    daemon = servd(web(1), main_py=plain("print('hello from', os.getpid(), flush=True)")).ready()
    with (
        daemon.running("logs", "-f", "web", "--json") as logs,
        daemon.running("events", "-f", "-n", "0") as events,
    ):
        assert logs.stdout is not None
        assert events.stdout is not None
        while "hello from" not in (line := logs.stdout.readline()):
            assert line
        assert json.loads(line)["service"] == "web"
        wait_until(lambda: _follows(daemon, events), "it shows what happens")
        for process in (logs, events):
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=DEADLINE)
            assert (process.returncode, said) == (0, "")


def _follows(daemon: ServdProcess, events: subprocess.Popen[str]) -> bool:
    """Triggers an event; returns whether the command has shown it."""
    assert events.stdout is not None
    daemon.reload()
    readable, _, _ = select.select([events.stdout], [], [], 0.1)
    return bool(readable) and "reload" in events.stdout.readline()


def test_following_ends_with_the_daemon(servd: Servd) -> None:
    daemon = servd(web(1), main_py=PLAIN).ready()
    with daemon.running("events", "-f") as events:
        assert events.stdout is not None
        assert "servd started" in events.stdout.readline()
        daemon.stop()
        shown, said = events.communicate(timeout=DEADLINE)
        assert "servd stopped" in shown.splitlines()[-1]
        assert (events.returncode, said) == (0, "")


def test_lines_can_be_fewer_and_of_a_level(servd: Servd) -> None:
    daemon = servd(web(1), main_py=PLAIN).ready()
    assert len(daemon.cli("events", "-n", "2").stdout.splitlines()) == 2
    os.kill(daemon.pids("web")[0], signal.SIGKILL)
    daemon.wait_for("worker exited")
    shown = daemon.cli("logs", "--level", "warning").stdout.splitlines()
    assert any("worker exited" in line for line in shown)
    assert not any("worker ready" in line for line in shown)


def test_output_that_has_no_room_is_said_without_a_traceback(servd: Servd) -> None:
    daemon = servd(web(1), main_py=PLAIN).ready()
    for arguments in ("check", "--help", "status", "logs", "status --json"):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "servd", *arguments.split()],
                cwd=servd.folder,
                env={**os.environ, **daemon.environ},
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                timeout=DEADLINE,
            )
        assert done.returncode == 1
        assert done.stderr.strip() == "servd: cannot write the output: No space left on device"


def test_top_is_readable_in_a_narrow_terminal(servd: Servd) -> None:
    daemon = servd(web(1), main_py=PLAIN).ready()
    for width in (30, 60):
        shown = daemon.cli("top", "--once", COLUMNS=str(width), TERM="dumb").stdout
        head = next(line for line in shown.splitlines() if line.startswith("SERVICE"))
        assert head.split()[:3] == ["SERVICE", "STATE", "READY"]
        assert "…" not in head
        assert all(len(line) <= width for line in shown.splitlines())
        assert "\x1b" not in shown


@pytest.mark.parametrize(
    "line",
    ["logs", "events", "logs -f", "status", "status --watch", "top", "reload", "--help", "show",
     "--version", "nonsense"],
)  # fmt: skip
def test_a_reader_that_goes_away_ends_a_command_as_sigpipe_does(servd: Servd, line: str) -> None:
    daemon = servd(web(1), main_py=PLAIN).ready()
    readable, writable = os.pipe()
    os.close(readable)
    with open(writable, "w") as closed:
        for errors in (subprocess.PIPE, closed):
            done = subprocess.run(
                [sys.executable, "-m", "servd", *line.split()],
                cwd=servd.folder,
                env={**os.environ, **daemon.environ},
                stdout=closed,
                stderr=errors,
                text=True,
                timeout=DEADLINE,
            )
            expected = 2 if line == "nonsense" and errors is not closed else 128 + signal.SIGPIPE
            assert done.returncode == expected
            assert "Traceback" not in (done.stderr or "")
            assert expected == 2 or not done.stderr


def test_a_pipe_to_head_says_nothing(servd: Servd) -> None:
    daemon = servd(web(1), main_py=PLAIN).ready()
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m servd logs | head -1"],
        cwd=servd.folder,
        env={**os.environ, **daemon.environ},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["servd", "restart", "w"], ["web", "worker"]),
        (["servd", "stop", ""], ["api", "web", "worker"]),
        (["servd", "scale", "a"], ["api"]),
        (["servd", "logs", "web", "a"], ["api"]),
        (["servd", "--config", "other.toml", "start", ""], ["only"]),
        (["servd", "start", "-c", "other.toml", ""], ["only"]),
        (["servd", "sca"], ["scale"]),
    ],
)
def test_a_shell_completes_the_names_of_services(
    tmp_path: Path, words: list[str], expected: list[str]
) -> None:
    (tmp_path / "servd.toml").write_text(
        "".join(f"[services.{name}]\n{SLEEP}\n" for name in ("web", "worker", "api"))
    )
    (tmp_path / "other.toml").write_text(f"[services.only]\n{SLEEP}\n")
    done = command(
        folder=tmp_path,
        environ={
            "_SERVD_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(words),
            "COMP_CWORD": str(len(words) - 1),
        },
    )
    assert [line.partition(",")[2] for line in done.stdout.splitlines()] == expected


def test_status_shows_a_table_that_fits_a_terminal(servd: Servd) -> None:
    daemon = servd(web(), main_py=PLAIN).ready()
    environ = {"SERVD_DAEMON__RUNTIME_DIR": str(daemon.runtime)}
    done = command("status", folder=servd.folder, environ=environ)
    assert done.returncode == 0
    assert re.search(r"^web +ready +2/2 +\d+ (s|min) +0 +-", done.stdout, re.MULTILINE)
    listens = r"^  http://127.0.0.1:\d+  generation 1  pid \d+ \d+$"
    assert re.search(listens, done.stdout, re.MULTILINE)
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_a_daemon_that_is_not_there_is_one_line_and_69(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("app = None\n")
    (tmp_path / "servd.toml").write_text('[services.web]\napp = "main:app"\n')
    for arguments in (["status"], ["reload"], ["restart", "web"], ["status", "--json"]):
        done = command(*arguments, folder=tmp_path)
        assert done.returncode == 69, done.stderr
        assert re.fullmatch(NOT_RUNNING, done.stderr)


def test_plan_without_a_daemon_is_the_first_start(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("app = None\n")
    (tmp_path / "servd.toml").write_text('[services.web]\napp = "main:app"\nlisten = ":80"\n')
    done = command("plan", "--detailed-exitcode", folder=tmp_path)
    assert done.returncode == 2
    assert done.stdout.splitlines()[0] == "+ web  add  http://0.0.0.0:80, 1 worker"
    assert "this is what a first start would do" in done.stderr


def test_the_exit_code_of_a_plan_tells_changes_from_none_and_errors(servd: Servd) -> None:
    daemon = servd(web(1), main_py=PLAIN).ready()
    environ = {"SERVD_DAEMON__RUNTIME_DIR": str(daemon.runtime), "SERVD_DAEMON__WATCH": "false"}

    def plan(config: str) -> int:
        daemon.edit(config)
        arguments = ["plan", "--detailed-exitcode"]
        return int(command(*arguments, folder=servd.folder, environ=environ).returncode)

    assert [plan(web(1)), plan(web(2)), plan(web(2) + "oops")] == [0, 2, 1]
    done = command("plan", folder=servd.folder, environ=environ)
    assert done.returncode == 78
    assert done.stderr.startswith("servd.toml:")


def test_a_file_with_a_syntax_error_still_says_where_its_daemon_is(servd: Servd) -> None:
    """The runtime folder is configured before the error."""
    short = servd._short / "own"
    config = f'[daemon]\nruntime_dir = "{short}"\nwatch = false\n' + web()
    servd.write(servd_toml=config, main_py=PLAIN)
    daemon = servd.run("--config", "servd.toml", environ={"SERVD_DAEMON__RUNTIME_DIR": str(short)})
    daemon.runtime = short
    daemon.ready()
    daemon.edit(config + "\n[services.web\n")
    done = command("reload", folder=servd.folder)
    assert done.returncode == 1, done.stderr
    assert "invalid: servd.toml:" in done.stderr
    done = command("status", folder=servd.folder)
    assert "last reload: invalid" in done.stdout
