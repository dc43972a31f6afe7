"""`watchdog`: workers whose event loop stops."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import httpx

from support.harness import DEADLINE, Servd, wait_until

APP = """
    import os

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        if scope["path"] == "/hang":
            print("hangs", flush=True)
        while scope["path"] == "/hang":
            pass
        body = str(os.getpid()).encode()
        await send({"type": "http.response.start", "status": 200,
                    "headers": [(b"content-length", str(len(body)).encode())]})
        await send({"type": "http.response.body", "body": body})
"""

NOTIFIES = """
    import os, signal, socket, sys, time

    def say(text):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.sendto(text.encode(), os.environ["NOTIFY_SOCKET"])

    assert os.environ["WATCHDOG_PID"] == str(os.getpid())
    half = int(os.environ["WATCHDOG_USEC"]) / 2_000_000
    hung = False

    def hang(*_):
        global hung
        hung = True

    signal.signal(signal.SIGUSR1, hang)
    say("READY=1")
    time.sleep(3 * half)  # longer than the watchdog: it is armed by the first sign of life only
    print("signs begin", half, flush=True)
    while True:
        if not hung:
            say("WATCHDOG=1")
        time.sleep(half)
"""


def moment(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["timestamp"]).timestamp()


def test_a_worker_whose_loop_stops_is_replaced_with_its_stack_in_the_log(servd: Servd) -> None:
    daemon = servd(
        """
        [services.web]
        app = "main:app"
        listen = "127.0.0.1:0"
        workers = 2
        watchdog = "2s"
        """,
        main_py=APP,
    ).ready()
    before = set(daemon.pids("web"))
    url = daemon.url("web")
    stop, answered, lost = threading.Event(), [0], []

    def ask() -> None:
        with httpx.Client(timeout=DEADLINE, headers={"connection": "close"}) as client:
            while not stop.is_set():
                try:
                    answered[0] += client.get(url).status_code == 200
                except httpx.TransportError as error:
                    # the hung worker had accepted it: such a request waits with it, to its end
                    lost.append(error)

    # more of them than the hung worker can have accepted at once
    asking = [threading.Thread(target=ask) for _ in range(8)]
    for thread in asking:
        thread.start()
    wait_until(lambda: answered[0] > 10, "requests are answered")
    with ThreadPoolExecutor(1) as pool:
        hangs = pool.submit(daemon.get, "web", "/hang")
        hung_at = moment(daemon.wait_for("hangs"))
        served_before = answered[0]
        died = daemon.wait_for("worker exited")
        ready = wait_until(
            lambda: daemon.find("worker ready", worker=died["worker"])[1:], "another"
        )
        served_meanwhile = answered[0] - served_before
        assert isinstance(hangs.exception(), httpx.TransportError)
    stop.set()
    for thread in asking:
        thread.join()

    starts = [event["seconds"] for event in daemon.find("worker ready")[:2]]
    assert moment(ready[0]) - hung_at <= 2 + max(1, 2 * max(starts)), (
        "replaced within the watchdog's time and a second, or as workers start on this machine"
    )
    assert died["reason"] == "was unresponsive for 2 s"
    (hung,) = daemon.find("worker hung")
    assert (hung["worker"], hung["pid"], hung["level"]) == (died["worker"], died["pid"], "error")
    daemon.wait_for_line("Fatal Python error: Aborted", pid=died["pid"])

    def says() -> list[str]:
        return [str(event["event"]) for event in daemon.events if event.get("pid") == died["pid"]]

    stack = wait_until(lambda: says() if "in app" in "".join(says()) else [], "the stack")
    lines = ('main.py", line 8 in app', 'main.py", line 9 in app')  # the loop, or its body
    assert any(each in line for line in stack for each in lines)
    assert served_meanwhile > 10
    assert len(before & set(daemon.pids("web"))) == 1
    assert daemon.metric("servd_worker_restarts_total", reason="watchdog", service="web") == 1


def test_without_a_watchdog_a_stopped_loop_is_left_alone_until_it_is_turned_on(
    servd: Servd,
) -> None:
    config = """
        [services.web]
        app = "main:app"
        listen = "127.0.0.1:0"
        watchdog = "{}"
    """
    daemon = servd(config.format("none"), main_py=APP).ready()
    (pid,) = daemon.pids("web")
    assert daemon.reload(config.format("2s"))["changes"][0]["kind"] == "live"
    assert daemon.pids("web") == [pid]
    os.kill(pid, signal.SIGSTOP)
    died = daemon.wait_for("worker exited", pid=pid)
    assert died["reason"] == "was unresponsive for 2 s"
    wait_until(lambda: daemon.service("web")["state"] == "ready", "another worker")


def test_a_program_is_watched_from_its_first_sign_of_life_on(servd: Servd) -> None:
    daemon = servd(
        """
        [services.notifier]
        command = ["python3", "notifier.py"]
        watchdog = "2s"
        ready = "notify"
        env_passthrough = ["*"]
        """,
        environ={"WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"},
        notifier_py=NOTIFIES,
    ).ready()
    daemon.wait_for_line("signs begin 1.0")
    (pid,) = daemon.pids("notifier")
    os.kill(pid, signal.SIGUSR1)
    daemon.wait_for("worker hung", pid=pid)
    assert daemon.wait_for("worker exited", pid=pid)["exit_status"] == -signal.SIGABRT
    assert len(daemon.find("worker hung")) == 1, "none before it hung"


def test_a_daemon_that_was_held_up_itself_blames_no_worker(servd: Servd) -> None:
    daemon = servd(
        """
        [services.web]
        app = "main:app"
        listen = "127.0.0.1:0"
        watchdog = "2s"
        """,
        main_py=APP,
    ).ready()
    (pid,) = daemon.pids("web")
    os.kill(daemon.pid, signal.SIGSTOP)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(3)  # longer than the watchdog: for which time itself stands still
    os.kill(daemon.pid, signal.SIGCONT)
    os.kill(pid, signal.SIGCONT)
    assert daemon.get("web").text == str(pid)
    assert daemon.reload()["outcome"] == "unchanged"  # whatever was logged before is in the log
    assert daemon.pids("web") == [pid]
    assert not daemon.find("worker hung")


def test_a_worker_that_drains_is_not_watched(servd: Servd) -> None:
    """The drain has a deadline of its own, and a program has stopped its loop by then."""
    slow_end = NOTIFIES.replace(
        "signal.signal(signal.SIGUSR1, hang)",
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(5), sys.exit(0)))",
    ).replace("time.sleep(3 * half)", "pass")
    daemon = servd(
        """
        [services.notifier]
        command = ["python3", "notifier.py"]
        watchdog = "2s"
        ready = "notify"
        """,
        notifier_py=slow_end,
    ).ready()
    daemon.wait_for_line("signs begin 1.0")
    assert daemon.stop() == 0
    assert not daemon.find("worker hung")
