"""`[[hooks]]`: what is run and called when something happens."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
import trustme

from support.apps import PLAIN, SLEEP, web
from support.harness import Servd, alive, command, wait_until

SAVES = """#!/bin/sh
cat > event.tmp && mv event.tmp event.json
env > environ.txt
"""


def hook(events: str, rest: str) -> str:
    return f"[[hooks]]\non = [{events}]\n{rest}\n"


def program(folder: Path, text: str = SAVES, name: str = "notify.sh") -> None:
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


class Receiver(ThreadingHTTPServer):
    """A real HTTP server that keeps what is posted to it."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.status = 204
        self.delay = threading.Event()
        self.delay.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.bodies.append({"type": self.headers["content-type"], **json.loads(body)})
                outer.delay.wait(30)
                self.send_response(outer.status)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook?key=hidden-key"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.delay.set()
    found.shutdown()
    found.server_close()


def test_a_command_gets_the_event_on_stdin_and_little_of_the_environment(servd: Servd) -> None:
    program(servd.folder)
    config = hook('"reload_failed"', 'command = ["./notify.sh"]') + web(1)
    daemon = servd(config, environ={"MY_SECRET": "x"}, main_py=PLAIN).ready()
    daemon.reload(config.replace("main:app", "main:nosuch"))
    file = servd.folder / "event.json"
    wait_until(file.exists, "the hook ran")
    event = json.loads(file.read_text())
    assert (event["hook"], event["outcome"]) == ("reload_failed", "rolled_back")
    assert 'has no attribute "nosuch"' in event["error"]
    wait_until((servd.folder / "environ.txt").exists, "it went on")
    assert "MY_SECRET" not in (servd.folder / "environ.txt").read_text()


def test_a_url_is_called_for_a_crash_loop(servd: Servd, receiver: Receiver) -> None:
    config = hook('"crash_loop"', f'url = "{receiver.url}"')
    config += web(1, workers=1, extra='restart = { backoff = "10ms", backoff_max = "20ms" }')
    daemon = servd(config, main_py="raise SystemExit('no way')")
    wait_until(lambda: receiver.bodies, "the hook was called")
    (body,) = receiver.bodies
    assert (body["hook"], body["service"], body["type"]) == (
        "crash_loop", "web", "application/json",
    )  # fmt: skip
    assert "SystemExit: no way" in body["last_lines"]
    assert daemon.stop() == 0


def test_reloads_and_replaced_workers_have_hooks_and_a_reload_changes_them(
    servd: Servd, receiver: Receiver
) -> None:
    daemon = servd(web(1, workers=1), main_py=PLAIN).ready()
    hooks = hook('"reload_applied", "worker_replaced"', f'url = "{receiver.url}"')
    assert daemon.reload(hooks + web(1, workers=1))["outcome"] == "applied"
    wait_until(lambda: len(receiver.bodies) == 1, "called")
    psutil.Process(daemon.pids("web")[0]).kill()
    wait_until(lambda: len(receiver.bodies) == 2, "called again")
    assert [body["hook"] for body in receiver.bodies] == ["reload_applied", "worker_replaced"]
    count = len(receiver.bodies)
    wait_until(lambda: daemon.service("web")["state"] == "ready", "replaced")
    assert daemon.reload(hooks + web(2, workers=1))["outcome"] == "applied"
    wait_until(lambda: len(receiver.bodies) > count, "called again")
    assert receiver.bodies[-1]["hook"] == "reload_applied"
    assert daemon.reload()["outcome"] == "unchanged"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("#!/bin/sh\necho it broke >&2\nexit 3\n", "exited with status 3"),
        ("#!/bin/sh\nsleep 1000\n", "took longer than 0.5 s"),
        ("#!/bin/sh\nyes\n", "took longer than 0.5 s"),
        ("#!/nowhere/sh\n", "cannot start"),
        ("#!/bin/sh\nexec 0<&-; exit 4\n", "exited with status 4"),
    ],
)
def test_a_hook_that_fails_is_said_and_stops_nothing(servd: Servd, text: str, why: str) -> None:
    program(servd.folder, text)
    config = hook('"reload_applied"', 'command = ["./notify.sh"]\ntimeout = "500ms"') + web(1)
    daemon = servd(config, main_py=PLAIN).ready()
    answer = daemon.reload(config + "threads = 3\n")
    assert answer["outcome"] == "applied"
    failed = daemon.wait_for("hook failed", hook="reload_applied")
    happened = [event["event"] for event in daemon.events]
    assert happened.index("reload finished") < happened.index("hook failed"), "it is not awaited"
    assert why in failed["error"]
    if "broke" in text:
        assert failed["last_lines"] == ["it broke"]
    assert daemon.stop() == 0


def test_a_slow_hook_keeps_no_other_waiting(servd: Servd, receiver: Receiver) -> None:
    program(servd.folder, "#!/bin/sh\nsleep 1000\n")
    config = hook('"reload_applied"', 'command = ["./notify.sh"]\ntimeout = "1h"')
    config += hook('"reload_failed"', f'url = "{receiver.url}"')
    daemon = servd(config + web(1), main_py=PLAIN).ready()
    for workers in (3, 4, 5, 6, 7):
        daemon.act("web", "scale", workers=workers)
    daemon.reload(config + web(1).replace("main:app", "main:nosuch"))
    wait_until(lambda: receiver.bodies, "the other one is called")
    assert receiver.bodies[0]["hook"] == "reload_failed"
    assert daemon.stop() == 0
    assert daemon.find("hooks dropped")[0]["calls"] == 5


def test_what_a_hook_leaves_behind_ends_with_it(servd: Servd) -> None:
    program(servd.folder, "#!/bin/sh\nsleep 1000 & echo $! > pid.tmp; mv pid.tmp pid\n")
    config = hook('"reload_applied"', 'command = ["./notify.sh"]') + web(1)
    daemon = servd(config, main_py=PLAIN).ready()
    daemon.reload(config + "threads = 3\n")
    wait_until((servd.folder / "pid").exists, "it ran")
    pid = int((servd.folder / "pid").read_text())
    child = [p for p in psutil.process_iter() if p.pid == pid]
    wait_until(lambda: not alive(child), "its child has ended")
    assert daemon.stop() == 0
    assert daemon.find("hook failed") == []


def test_a_url_that_fails_is_named_without_its_secrets(servd: Servd, receiver: Receiver) -> None:
    receiver.status = 302
    hooks = hook('"reload_applied"', f'url = "{receiver.url}"')
    hooks += hook('"reload_applied"', 'url = "http://127.0.0.1:1/?key=hidden-key"')
    daemon = servd(hooks + web(1), main_py=PLAIN).ready()
    daemon.reload(hooks + web(2))
    wait_until(lambda: len(daemon.find("hook failed")) == 2, "both failed")
    errors = sorted(event["error"] for event in daemon.find("hook failed"))
    assert errors[0].startswith("request failed")
    assert errors[1] == "responded with 302"
    assert "hidden-key" not in daemon.output
    assert "hidden-key" not in daemon.ask("GET", "/v1/config").text
    assert "hidden-key" not in daemon.cli("show").stdout


def test_a_hook_that_hangs_does_not_hold_the_stop_up(servd: Servd, receiver: Receiver) -> None:
    receiver.delay.clear()
    program(servd.folder, "#!/bin/sh\nsleep 1000\n")
    hooks = hook('"reload_applied"', f'url = "{receiver.url}"\ntimeout = "1h"')
    hooks += hook('"reload_applied"', 'command = ["./notify.sh"]\ntimeout = "1h"')
    daemon = servd(hooks + f"[services.job]\n{SLEEP}\n").ready()
    daemon.reload(hooks + f"[services.job]\n{SLEEP}\nstop_signal = 'SIGKILL'\n")
    wait_until(lambda: receiver.bodies, "it was called")
    assert daemon.stop() == 0  # long before the hour is over; and nothing is left of the program


@pytest.mark.parametrize(
    ("rest", "mistake"),
    [
        ('command = ["./nosuch"]', "program not found or not executable: /"),
        ('url = "ftp://x"', "http:// or https://"),
        ('command = ["true"]\nurl = "http://x"', "set either command or url"),
        ('command = ["true"]\ntimeout = 0', "must be longer than 0s"),
    ],
)
def test_hooks_that_make_no_sense_are_mistakes(tmp_path: Path, rest: str, mistake: str) -> None:
    config = hook('"crash_loop"', rest) + f"[services.job]\n{SLEEP}\n"
    (tmp_path / "servd.toml").write_text(config)
    done = command("check", folder=tmp_path)
    assert done.returncode == 78
    assert mistake in done.stderr


def certificate(folder: Path, *, days: float, name: str = "cert") -> None:
    """A certificate that is valid for so many more days, and its key."""
    ends = datetime.now(UTC) + timedelta(days=days)
    issued = trustme.CA().issue_cert("localhost", not_after=ends)
    issued.private_key_pem.write_to_path(folder / f"{name}.key")
    issued.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")


def test_a_certificate_that_expires_soon_is_said_once_and_after_a_change_again(
    servd: Servd, receiver: Receiver
) -> None:
    certificate(servd.folder, days=3)
    certificate(servd.folder, days=1, name="next")
    certificate(servd.folder, days=100, name="good")
    tls = '\n[services.web.tls]\ncertfile = "cert.pem"\nkeyfile = "cert.key"\n'
    config = hook('"certificate_expiring"', f'url = "{receiver.url}"') + web(1) + tls
    daemon = servd(config, main_py=PLAIN).ready()
    wait_until(lambda: receiver.bodies, "it is said")
    (body,) = receiver.bodies
    assert (body["service"], body["event"]) == ("web", "certificate expiring")
    assert 2.9 < body["days"] <= 3
    assert daemon.service("web")["certificate_expires_at"] == body["expires_at"]
    assert daemon.reload(config.replace("cert.", "good."))["outcome"] == "applied"
    assert daemon.reload(config.replace("cert.", "next."))["outcome"] == "applied"
    wait_until(lambda: len(receiver.bodies) == 2, "the other one is said too")
    assert receiver.bodies[1]["days"] <= 1
    assert len(daemon.find("certificate expiring")) == 2
