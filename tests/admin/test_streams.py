"""Events and logs as server-sent events."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from support.apps import PLAIN, SLEEP, web
from support.harness import DEADLINE, Servd, ServdProcess, wait_until

TALKS = """
    import asyncio

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        for number in range(int(scope["query_string"] or b"1")):
            print(number, "x" * 200, flush=True)
            if number % 50 == 0:
                await asyncio.sleep(0.01)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})
"""


def until(events: Iterator[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """The events up to the first of this name."""
    found: list[dict[str, Any]] = []
    for event in events:
        found.append(event)
        if event["data"]["event"] == name:
            return found
    raise AssertionError(f"the stream ended before {name!r}: {found}")


def names(events: list[dict[str, Any]]) -> list[str]:
    return [event["data"]["event"] for event in events]


def test_every_change_of_a_service_and_its_workers_is_an_event(servd: Servd) -> None:
    daemon = servd(web(1, workers=1), main_py=PLAIN).ready()
    (pid,) = daemon.pids("web")
    with daemon.follow("/v1/events?lines=0") as events:
        daemon.reload(web(2, workers=1), wait_drained=True)
        found = until(events, "worker stopped")
    assert names(found) == [
        "reload started", "reload planned", "worker started", "service rolling", "worker ready",
        "reload prepared", "worker draining", "service ready", "reload finished", "worker stopped",
    ]  # fmt: skip
    draining = next(e["data"] for e in found if e["data"]["event"] == "worker draining")
    assert (draining["pid"], draining["reason"]) == (pid, "replaced by generation 2")
    for event in found:  # and all of it stands in the log
        assert event["data"] in daemon.events


def test_a_worker_that_dies_and_one_that_goes_for_a_limit_have_their_reasons(servd: Servd) -> None:
    limits = "limits = { max_requests = 1 }"
    daemon = servd(web(1, workers=1, extra=limits), main_py=PLAIN).ready()
    with daemon.follow("/v1/events?lines=0&service=web") as events:
        daemon.get("web")
        recycled = until(events, "worker draining")[-1]["data"]
        assert recycled["reason"] == "recycled: max_requests"
        until(events, "worker stopped")
        os.kill(daemon.pids("web")[0], signal.SIGKILL)
        assert until(events, "worker exited")[-1]["data"]["reason"] == "was killed by SIGKILL"


def test_a_crash_loop_is_said_once_with_the_last_words(servd: Servd) -> None:
    loops = 'restart = { backoff = "10ms", backoff_max = "20ms", reset_after = "500ms" }'
    config = web(1, workers=1, extra=loops)
    daemon = servd(config, main_py="print('last words'); raise SystemExit(3)")
    with_words = daemon.wait_for("crash loop")
    assert (with_words["service"], with_words["failures"]) == ("web", 3)
    assert "last words" in with_words["last_lines"]
    wait_until(lambda: len(daemon.find("worker exited")) > 6, "it goes on")
    assert len(daemon.find("crash loop")) == 1
    assert daemon.service("web")["crash_loop"] is True
    servd.write(main_py=PLAIN)
    wait_until(lambda: daemon.service("web")["state"] == "ready", "it is mended")
    wait_until(lambda: not daemon.service("web")["crash_loop"], "it has proved itself")


def test_a_crash_loop_of_a_command_has_last_words_too(servd: Servd) -> None:
    command = '["sh", "-c", "echo FATAL: no such database; exit 3"]'
    loops = 'restart = { backoff = "10ms", backoff_max = "20ms" }'
    daemon = servd(f"[services.loop]\ncommand = {command}\n{loops}\n")
    assert "FATAL: no such database" in daemon.wait_for("crash loop")["last_lines"]
    assert "crash loop: worker 0" in daemon.cli("top", "--once", COLUMNS="120").stdout


def test_logs_have_what_programs_print_and_can_be_of_one_service(servd: Servd) -> None:
    two = web(1) + '\n[services.echo]\ncommand = ["sh", "-c", "echo hello; sleep 1000"]\n'
    daemon = servd(two, main_py=PLAIN).ready()
    wait_until(lambda: daemon.lines("hello"), "it printed")
    with daemon.follow("/v1/logs?follow=false&service=echo") as lines:
        found = list(lines)
    assert "hello" in names(found)
    assert {event["data"]["service"] for event in found} == {"echo"}
    with daemon.follow("/v1/logs?follow=false") as lines:
        assert {"hello", "servd ready"} <= set(names(list(lines)))
    with daemon.follow("/v1/events?follow=false") as lines:
        assert "hello" not in names(list(lines))


def test_a_client_goes_on_after_the_last_event_that_it_has(servd: Servd) -> None:
    daemon = servd(web(1), main_py=PLAIN).ready()
    with daemon.follow("/v1/events?follow=false") as events:
        found = list(events)
    assert len({event["id"] for event in found}) == len(found)
    with daemon.follow("/v1/events?follow=false", found[-1]["id"]) as events:
        assert list(events) == []  # nothing new, and no lines of the past
    with daemon.follow("/v1/events?follow=false", found[2]["id"]) as events:
        assert list(events) == found[3:]
    with daemon.follow("/v1/events", found[2]["id"]) as events:
        assert list(itertools.islice(events, len(found) - 3)) == found[3:]


def test_a_quiet_log_keeps_no_event_from_those_who_follow(servd: Servd) -> None:
    quiet = '[daemon]\nlog.level = "error"\n'
    daemon = servd(quiet + web(1), main_py=PLAIN)
    wait_until((daemon.runtime / "admin.sock").exists, "it begins")
    with daemon.follow("/v1/events") as events:
        assert "servd started" in names(until(events, "servd ready"))
    assert daemon.reload(quiet + web(2))["outcome"] == "applied"
    assert daemon.events == []  # of all that, nothing is for the log
    with daemon.follow("/v1/logs?follow=false") as lines:
        assert list(lines) == []


def test_an_id_of_another_run_begins_anew_and_says_so(servd: Servd) -> None:
    daemon = servd(web(1), main_py=PLAIN).ready()
    for last_id in ("00000000-5", "nonsense", "00000000-99999999999999999999"):
        with daemon.follow("/v1/events?follow=false", last_id) as events:
            found = list(events)
        assert found[0]["type"] == "gap"
        assert names(found)[-1] == "servd ready"


def slow_reader(daemon: ServdProcess, route: str) -> socket.socket:
    """A client that asks, and reads nothing."""
    client = socket.socket(socket.AF_UNIX)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(str(daemon.runtime / "admin.sock"))
    client.sendall(f"GET {route} HTTP/1.1\r\nHost: servd\r\n\r\n".encode())
    return client


def test_a_client_that_reads_nothing_costs_nothing_and_learns_of_its_gap(servd: Servd) -> None:
    daemon = servd(web(1, workers=1), main_py=TALKS).ready()
    slow = slow_reader(daemon, "/v1/logs?lines=0")
    with daemon.follow("/v1/logs?lines=0&service=web") as lines:
        before = psutil.Process(daemon.pid).memory_info().rss
        for _ in range(4):
            daemon.get("web", "/?5000")
        assert names([next(lines)])[0].startswith("0 x")
    grown = psutil.Process(daemon.pid).memory_info().rss - before
    assert grown < 8 * 2**20
    slow.settimeout(DEADLINE)
    text = b""
    while b"event: gap" not in text:
        chunk = slow.recv(65536)
        assert chunk, "it ended without a word about the gap"
        text += chunk
    slow.close()
    assert daemon.stop() == 0


def test_a_client_that_reads_nothing_does_not_hold_the_stop_up(servd: Servd) -> None:
    daemon = servd(web(1, workers=1), main_py=TALKS).ready()
    slow = slow_reader(daemon, "/v1/logs?lines=0")
    daemon.get("web", "/?5000")
    with slow, daemon.follow("/v1/events?lines=0") as events:
        daemon.send(signal.SIGTERM)
        assert names(until(events, "servd stopped"))[0] == "stopping"
        assert list(events) == []  # the stream ends properly
        assert daemon.wait() == 0
    stopped = daemon.find("servd stopped")[0]
    assert stopped == daemon.events[-1], "nothing is wrong with how the clients were let go"


def test_followers_are_bounded_and_let_go_of(servd: Servd) -> None:
    from servd.admin.streams import MOST_STREAMS

    daemon = servd(f"[services.job]\n{SLEEP}\n").ready()
    clients = [slow_reader(daemon, "/v1/events") for _ in range(MOST_STREAMS)]
    for client in clients:
        client.settimeout(DEADLINE)
        assert client.recv(12) == b"HTTP/1.1 200"
    answer = daemon.ask("GET", "/v1/events")
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    for client in clients:
        client.close()
    wait_until(
        lambda: daemon.ask("GET", "/v1/events?follow=false").status_code == 200, "room again"
    )


@pytest.mark.parametrize("line", [r"id: 5\revent: reload finished\rdata: {}", "data: x"])
def test_what_a_program_prints_cannot_pretend_to_be_another_event(servd: Servd, line: str) -> None:
    code = f'import sys, time; sys.stdout.buffer.write(b"\\x1e{line}\\n{line}\\n");'
    code += "sys.stdout.flush(); time.sleep(1000)"
    daemon = servd(f"[services.liar]\ncommand = {json.dumps(['python3', '-c', code])}\n").ready()
    wait_until(lambda: "data:" in daemon.output, "it was logged")
    text = daemon.ask("GET", "/v1/logs?follow=false&service=liar").text
    assert "\r" not in text
    for block in text.split("\n\n"):
        fields = [part.partition(":")[0] for part in block.split("\n") if part]
        assert fields in ([], [""], ["id", "data"]), block
