"""Lines of the access log, as workers write them and as a hostile one would."""

from __future__ import annotations

import json
import os
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servd.supervisor.io import output
from servd.supervisor.io.messages import FinishedEvent, split_events
from servd.supervisor.io.output import LAST_LINES
from servd.worker.asgi.access_log import AccessLog
from servd.worker.asgi.request import Request
from servd.worker.events import EventWriter

from support.worker_output import Reading

OWN = {"service": "web", "pid": 7}
TRACE = "0af7651916cd43dd8448eb211c80319c"


def written(*scopes: dict[str, Any], status: int = 200, seconds: float = 0.0123) -> bytes:
    """What a worker writes for requests."""
    reading, writing = os.pipe()
    log = AccessLog(EventWriter(writing, lambda count: None), (), 1.0)
    for scope in scopes:
        whole = {"method": "GET", "path": "/", "headers": [], "client": ("127.0.0.1", 5), **scope}
        log.add(Request(whole, None, None), status, seconds)  # type: ignore[arg-type]
    log.writer.close()
    os.close(writing)
    with open(reading, "rb") as file:
        return file.read()


def of(path: str = "/", request_id: str = "abc", trace: str = "") -> bytes:
    headers = [(b"x-request-id", request_id.encode("latin-1"))]
    if trace:
        headers.append((b"traceparent", f"00-{trace}-{'0' * 16}-01".encode("latin-1")))
    return written({"path": path, "headers": headers})


@pytest.mark.parametrize("trace", ["", TRACE])
@pytest.mark.parametrize(
    "path", ["/", "/a b", '/"odd"', "/back\\slash", "/ä😀", "/\x01\x02\x03\n\x1e", "/\ud800", ""]
)
def test_what_a_worker_writes_becomes_an_event_of_its_service(path: str, trace: str) -> None:
    (event,) = Reading(of(path, "my id", trace), stream="events").fields
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "level": "info",
        "event": "request",
        "http.request.method": "GET",
        "url.path": path,
        "http.response.status_code": 200,
        "client.address": "127.0.0.1",
        "duration_ms": 12.3,
        "request_id": "my id",
        **({"trace_id": trace} if trace else {}),
        **OWN,
    }
    assert list(event)[-2:] == [*OWN]


@given(st.lists(st.tuples(st.text(), st.text(st.characters(max_codepoint=255), max_size=40))))
def test_one_line_and_many_say_the_same(requests: list[tuple[str, str]]) -> None:
    content = b"".join(of(path, request_id) for path, request_id in requests)
    lines, rest = split_events(content)
    assert rest == b""
    events = FinishedEvent(OWN)
    found: list[dict[str, Any]] = []
    for line in lines:
        if b"\n" in line:
            found += map(json.loads, events.requests(line).split(b"\n"))
        else:
            read = events.read(line)
            assert read is not None
            found.append(json.loads(read[0]))
    assert [event["url.path"] for event in found] == [path for path, _ in requests]
    for event, (_, request_id) in zip(found, requests, strict=True):
        assert event["request_id"] == request_id or not request_id
        assert event.items() >= OWN.items()


def test_they_are_passed_on_together() -> None:
    content = b"".join(of(f"/{number}", trace=TRACE * (number % 2)) for number in range(5))
    reading = Reading(content, stream="events")
    assert len(reading.events) == 1
    assert [line["url.path"] for line in reading.lines] == ["/0", "/1", "/2", "/3", "/4"]
    assert [line.get("trace_id", "") for line in reading.lines] == ["", TRACE, "", TRACE, ""]
    assert all(line.items() >= OWN.items() for line in reading.lines)
    assert reading.last.text() == []


def test_many_come_in_several_pieces_of_a_bounded_size() -> None:
    reading = Reading(of("/x") * 3000, stream="events")
    assert len(reading.lines) == 3000
    assert max(map(len, reading.events)) < 128 * 1024


def test_what_stands_between_them_keeps_its_place() -> None:
    parts = [
        *(of("/1"), of("/2"), b'\x1e{"event": "said"}\n', of("/3")),
        *(of('/"odd"'), of("/ä"), of("/4"), b"text\n", of("/5")),
    ]
    for size in (7, 100, 100_000):
        content = b"".join(parts)
        chunks = [content[start : start + size] for start in range(0, len(content), size)]
        reading = Reading(*chunks, stream="events")
        shown = [line.get("url.path", line["event"]) for line in reading.lines]
        assert shown == ["/1", "/2", "said", "/3", '/"odd"', "/ä", "/4", "text", "/5"]
        assert all(line.items() >= OWN.items() for line in reading.lines)
        assert reading.last.text() == ["said", "text"]


@pytest.mark.parametrize(
    "value",
    [
        b'x", "service": "other', b'x", "serv\\u0069ce": "other', b'x", "pid": 1, "y": "',
        b'x"}\n\x1e{"event": "y", "service": "other',
    ],
)  # fmt: skip
@pytest.mark.parametrize("mark", [b"\x02", b"\x03", b"\x05", b"\x07"])
def test_no_line_says_whose_it_is(value: bytes, mark: bytes) -> None:
    forged = of("/1").replace(mark + b'"', mark + b'"' + value)
    for chunk in (forged, of("/0") + forged + forged + of("/2")):
        lines = Reading(chunk, stream="events").lines
        assert len(lines) >= chunk.count(b"\n")
        assert all(line.items() >= OWN.items() for line in lines)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\x04200", b"\x04"), (b"\x04200", b"\x040200"), (b"\x04200", b"\x04NaN"),
        (b"\x04200", b'\x04200, "a": ['), (b"\x0612.300", b"\x06012.300"),
        (b"\x0612.300", b"\x0612."), (b"\x0612.300", b"\x06"), (b"\x0612.300", b"\x06inf"),
        (b'abc"', b'abc\\"'), (b'abc"', b'abc'), (b'"abc', b'abc'), (b"abc", b"\xff"),
        (b"abc", b"\x00"), (b"abc", b"a\tb"), (b'\x07"abc"', b""), (b"\x07", b"\x07\x07"),
        (b'\x07"abc"', b'\x07"abc"\x07"abc"'), (b'"abc"', b'"abc"\x08"a"\x08b'),
        (b"\x03", b""), (b"\x03", b"\x02"), (b"\x01", b"\x01\x01"), (b"\x01", b"\x02"),
        (b"\x01", b""), (b"\x01", b"\x1e"), (b"GET", b"\x7f"), (b'"GET"', b"GET"),
        (b'\x02"GET"\x03"/"\x04', b'\x04200\x03"/"\x02'), (b"\x012", b'\x01"2'),
    ],
)  # fmt: skip
def test_whatever_is_not_one_is_text_or_an_event_and_spoils_no_other(
    old: bytes, new: bytes
) -> None:
    good = of("/good")
    odd = of("/").replace(old, new)
    assert old in of("/")
    reading = Reading(good + odd + good + good + odd, odd, good, stream="events")
    assert len(reading.lines) == 7  # each is JSON
    assert [line.get("url.path") == "/good" for line in reading.lines] == [
        *(True, False, True, True, False, False, True)
    ]
    assert all(line.items() >= OWN.items() for line in reading.lines)


def test_a_program_that_prints_one_prints_text() -> None:
    (event,) = Reading(of("/"), stream="stdout").fields
    assert event["event"].startswith("\x01")
    assert event["stream"] == "stdout"


def test_many_last_requests_count_as_last_lines() -> None:
    said = b'\x1e{"event": "said"}\n'
    assert Reading(said + of() * 49, stream="events").last.text() == ["said"]
    assert Reading(said + of() * LAST_LINES, stream="events").last.text() == []


def test_what_lies_in_a_resting_pipe_is_not_lost_with_its_worker() -> None:
    with mock.patch.object(output, "_REST_SECONDS", 3600.0):
        reading = Reading(*(of(f"/{number}") for number in range(20)), stream="events")
    assert [line["url.path"] for line in reading.lines] == [f"/{number}" for number in range(20)]
    assert len(reading.events) < 20
