"""Events as values: two forms that say the same, each made once and only when it is asked for."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from unittest import mock

import pytest

from servd.cli.act import described
from servd.config.model import DaemonLog
from servd.core.events import Event
from servd.daemon.log.buffer import LogRouter
from servd.daemon.log.event import LogEvent
from servd.daemon.log.sink import LogSink


def test_fields_say_what_the_line_says() -> None:
    fields = {"event": Event.REQUEST, "places": ("a", 1), "error": OSError("x"), "n": {1: None}}
    event = LogEvent.by_daemon(fields)
    assert event.fields is not None
    assert event.fields == json.loads(event.json)
    assert [type(value) for value in event.fields.values()] == [str, list, str, dict]


def test_json_is_made_once_and_finished_lines_are_not_parsed() -> None:
    with mock.patch.object(json, "dumps", wraps=json.dumps) as dumps:
        event = LogEvent.by_daemon({"event": "x"})
        assert event.json is event.json
        assert dumps.call_count == 1
    with mock.patch.object(json, "loads", side_effect=AssertionError):
        assert LogEvent.by_worker("web", b"{}").json == b"{}"


@pytest.mark.parametrize("line", [b"no json", b"[1]", b"\xff"])
def test_lines_that_are_no_objects_have_no_fields(line: bytes) -> None:
    assert LogEvent.by_worker("web", line).fields is None


@pytest.fixture
def sink() -> Iterator[LogSink]:
    with open(os.devnull, "wb", buffering=0) as stream:
        sink = LogSink(DaemonLog(), stream)
        yield sink
        sink.close()


def test_subscribers_get_what_the_daemon_says_until_the_end(sink: LogSink) -> None:
    router = LogRouter(sink)
    taken: list[LogEvent] = []
    router.subscribe(taken.append)
    quiet = LogEvent.by_daemon({"event": "x", "service": "web"}, logged=False)
    router.by_daemon(quiet)
    router.by_worker("web", b"{}")
    router.close()
    router.by_daemon(quiet)
    assert taken == [quiet]
    assert [line.text for line in router.logs.tail(9)] == [b"{}"]
    assert [line.service for line in router.events.tail(9)] == ["web", "web"]


@pytest.mark.parametrize(
    ("event", "shown"),
    [
        (
            {"event": "worker ready", "seconds": 1.25},
            "  web worker 0 (generation 2) ready after 1.2 s",
        ),
        ({"event": "worker exited", "reason": "why"}, "  web worker 0 (generation 2) exited: why"),
        ({"event": "worker recycled", "reason": "max_age"}, ""),
        ({"event": "service waiting", "waiting_for": "db"}, "  web waiting: db"),
        ({"event": "service cannot start", "error": "no"}, "  web cannot start: no"),
        ({"event": "service ready"}, ""),
        ({"event": "task completed", "seconds": 1.0}, "  web completed"),
        ({"event": "listening"}, ""),
    ],
)
def test_progress_tells_the_steps_of_an_act(event: dict[str, object], shown: str) -> None:
    assert described({"service": "web", "worker": 0, "generation": 2, **event}) == shown
