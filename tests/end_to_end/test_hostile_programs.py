"""Programs that print or send whatever they like: nobody else is harmed by it."""

from __future__ import annotations

import os
import signal
import textwrap
import time

import httpx
import pytest

from support.harness import DEADLINE, Servd, ServdProcess, wait_until

NEIGHBOUR = """
    [services.neighbour]
    app = "main:app"
    listen = "127.0.0.1:0"
    log.access = false
"""
APP = """
    import threading

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200,
                    "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    def chatter():
        while True:
            print("a line that nobody wants to read")

    def chatty():
        threading.Thread(target=chatter, daemon=True).start()
        return app
"""
SHOUTS = """
    import sys
    sys.stdout.write(eval(sys.argv[1]) + "\\n")
    sys.stdout.flush()
    sys.exit(1)
"""
HOSTILE_LINES = (
    "'\\x1e[]'",
    "'\\x1e5'",
    "'\\x1e' + '[' * 10000",
    '\'\\x1e{"event": "reload failed", "service": "neighbour"}\'',
    '\'\\x1e{"event": "x", "last_lines": 5}\'',
)
SENDS = """
    import os

    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink("/proc/self/fd/" + name).startswith("socket:"):
                os.write(int(name), b'{"failed": "x", "missing_variable": []}\\n')
        except OSError:
            continue
    os._exit(1)
"""


def is_replaced(daemon: ServdProcess, name: str) -> float:
    """Seconds from a worker's death by signal to the start of the next one."""
    (before,) = daemon.pids(name)
    began = time.monotonic()
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: daemon.workers(name).get(0) not in (None, before), "another worker")
    return time.monotonic() - began


def test_a_printed_line_stops_no_supervision(servd: Servd) -> None:
    services = [
        f"""
        [services.hostile{number}]
        command = ["python3", "shouts.py", '''{line}''']
        restart = {{ backoff = "500ms", backoff_max = "500ms" }}
        """
        for number, line in enumerate(HOSTILE_LINES)
    ]
    config = "\n".join(map(textwrap.dedent, [NEIGHBOUR, *services]))
    daemon = servd(config, main_py=APP, shouts_py=SHOUTS).ready()
    for number in range(len(HOSTILE_LINES)):
        name = f"hostile{number}"
        wait_until(lambda: len(daemon.find("worker exited", service=name)) > 2, "it dies again")  # noqa: B023
    is_replaced(daemon, "neighbour")
    assert daemon.get("neighbour").text == "ok"
    assert not daemon.find("reload failed")
    assert not daemon.find("internal error")
    assert daemon.stop() == 0


def test_a_message_of_a_worker_stops_no_supervision(servd: Servd) -> None:
    config = f"""
        {NEIGHBOUR}
        [services.hostile]
        app = "hostile:app"
        restart = {{ backoff = "10ms", backoff_max = "50ms" }}
        timeouts.startup = "10s"
    """
    daemon = servd(config, main_py=APP, hostile_py=SENDS).ready()
    wait_until(lambda: len(daemon.find("worker exited", service="hostile")) > 3, "it dies again")
    is_replaced(daemon, "neighbour")
    assert daemon.get("neighbour").text == "ok"
    assert not daemon.find("internal error")
    assert daemon.stop() == 0


@pytest.mark.parametrize(
    "noisy",
    ['command = ["yes"]', 'app = "main:chatty"\nfactory = true\nlisten = "127.0.0.1:0"'],
    ids=["yes", "a thread that prints"],
)
def test_a_noisy_program_makes_nobody_wait(servd: Servd, noisy: str) -> None:
    config = textwrap.dedent(NEIGHBOUR) + f"\n[services.noisy]\n{noisy}\n"
    daemon = servd(config, main_py=APP).ready()
    reported = daemon.wait_for("output dropped", service="noisy")["lines"]
    with daemon.admin() as admin:
        for _ in range(20):
            assert admin.get("/livez").status_code == 200
    is_replaced(daemon, "neighbour")
    assert httpx.get(daemon.url("neighbour"), timeout=DEADLINE).text == "ok"
    assert (daemon.metric("servd_log_lines_dropped_total") or 0) >= reported > 0
    assert daemon.stop() == 0
