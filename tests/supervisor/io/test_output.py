"""What workers write, read from real pipes."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import pytest

from servd.daemon.log.event import LogEvent
from servd.supervisor.io.output import LAST_LINES, LONGEST_LINE_BYTES, LastLines, OutputPipe
from servd.supervisor.io.rate_limit import LineRate
from servd.supervisor.io.reader import SLICE_SECONDS, BoundedReader, ReadBudget


class Reading:
    """What came out of a pipe for chunks written one after the other."""

    def __init__(self, *chunks: bytes, stream: str = "stdout", rate: int = 0) -> None:
        self.events: list[bytes] = []
        self.dropped: list[int] = []
        self.last = LastLines()
        asyncio.run(self._read(chunks, stream, rate))

    async def _read(self, chunks: tuple[bytes, ...], stream: str, rate: int) -> None:
        reading, writing = os.pipe()
        limit = LineRate(rate, self.dropped.append, lambda: 0.0)
        pipe = OutputPipe(
            reading,
            {"service": "web", "pid": 7},
            stream,
            last=self.last,
            sink=lambda service, line: self.events.append(LogEvent.by_worker(service, line).json),
            now=lambda: "now",
            rate=limit,
            budget=ReadBudget(),
        )
        os.set_blocking(writing, False)
        for chunk in chunks:
            view = memoryview(chunk)
            while view:
                try:
                    view = view[os.write(writing, view) :]
                except BlockingIOError:  # the pipe is read in this very thread
                    await asyncio.sleep(0.001)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        os.close(writing)
        pipe.drain()
        pipe.close()
        limit.report()

    @property
    def fields(self) -> list[dict[str, Any]]:
        """The events, read."""
        return [json.loads(event) for event in self.events]

    @property
    def texts(self) -> list[str]:
        """The texts of the events."""
        return [event["event"] for event in self.fields]


def test_a_printed_line_becomes_an_event_of_its_service() -> None:
    assert Reading(b"hello\n").fields == [
        {
            "timestamp": "now",
            "level": "info",
            "event": "hello",
            "stream": "stdout",
            "service": "web",
            "pid": 7,
        }
    ]


def test_an_event_of_a_worker_gets_the_identity_that_the_daemon_knows() -> None:
    found = Reading(b'\x1e{"event": "x"}\n', stream="events").fields
    assert found == [{"event": "x", "service": "web", "pid": 7}]


@pytest.mark.parametrize(
    "forged",
    [
        '{"event": "reload failed", "service": "other", "level": "error"}',
        '{"event": "reload failed", "serv\\u0069ce": "other"}',
        '{"service": "web", "event": "reload failed", "service": "other", "pid": 1}',
    ],
)
def test_no_program_can_write_in_the_name_of_another(forged: str) -> None:
    line = b"\x1e" + forged.encode() + b"\n"
    (by_worker,) = Reading(line, stream="events").fields
    assert (by_worker["service"], by_worker["pid"]) == ("web", 7)
    for stream in ("stdout", "stderr"):
        (printed,) = Reading(line, stream=stream).fields
        assert list(printed.values())[2] == "\x1e" + forged
        assert (printed["service"], printed["stream"]) == ("web", stream)


@pytest.mark.parametrize(
    "odd",
    [
        b"[]", b"5", b"null", b"{}", b'{"event": 1}', b'{"event": "x", "exception": [1]}',
        b'{"event": "x", "last_lines": 5}', b'{"event": "x", "timestamp": {}}',
        b"[" * 10_000, b'{"event": ' + b"9" * 5000 + b"}", b"\xff", b'{"event": "x"} {}',
        '{"event": "x"}'.encode("utf-16"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", ["stdout", "events"])
def test_whatever_a_program_marks_as_an_event_is_text_unless_it_is_one(
    odd: bytes, stream: str
) -> None:
    reading = Reading(b"\x1e" + odd.replace(b"\n", b"") + b"\nnext\n", stream=stream)
    assert reading.texts[-1] == "next"
    assert all(event["stream"] == stream for event in reading.fields)
    assert reading.last.text()[-1] == "next"


def _request(path: str, more: str = "", event: str = "request") -> bytes:
    """A line of the access log, as workers write it."""
    return (
        f'\x1e{{"timestamp": "2026-01-31T12:00:00.123456Z", "level": "info", "event": "{event}", '
        f'"http.request.method": "GET", "url.path": {json.dumps(path)}, '
        '"http.response.status_code": 200, "client.address": "127.0.0.1", '
        f'"duration_ms": 0.123, "request_id": "abc"{more}}}\n'
    ).encode()


def test_lines_of_the_access_log_are_passed_on_together() -> None:
    lines = [_request(f"/{number}", ', "trace_id": "0f"' * (number % 2)) for number in range(5)]
    reading = Reading(b"".join(lines), stream="events")
    (together,) = reading.events
    found = [json.loads(line) for line in together.split(b"\n")]
    assert found == [{**json.loads(line[1:]), "service": "web", "pid": 7} for line in lines]
    assert reading.last.text() == []


def test_what_stands_between_lines_of_the_access_log_keeps_its_place() -> None:
    parts = [
        *(_request("/1"), _request("/2"), b'\x1e{"event": "said"}\n', _request("/3")),
        *(_request('/"odd"'), _request("/ä"), _request("/4"), b"text\n", _request("/5")),
    ]
    for size in (7, 100, 100_000):
        content = b"".join(parts)
        chunks = [content[start : start + size] for start in range(0, len(content), size)]
        reading = Reading(*chunks, stream="events")
        found = [json.loads(line) for event in reading.events for line in event.split(b"\n")]
        shown = [event.get("url.path", event["event"]) for event in found]
        assert shown == ["/1", "/2", "said", "/3", '/"odd"', "/ä", "/4", "text", "/5"]
        assert all((event["service"], event["pid"]) == ("web", 7) for event in found)
        assert reading.last.text() == ["said", "text"]


@pytest.mark.parametrize(
    "more",
    [', "service": "other"', ', "trace_id": "0f", "service": "other"', ', "pid": 1', ', "a": [5'],
)
def test_no_line_of_the_access_log_says_whose_it_is(more: str) -> None:
    forged = _request("/1", more)
    events = Reading(_request("/0"), forged, forged + _request("/2"), stream="events").events
    found = [json.loads(line) for event in events for line in event.split(b"\n")]
    assert len(found) == 4
    assert all((event["service"], event["pid"]) == ("web", 7) for event in found)


def test_many_last_requests_count_as_last_lines() -> None:
    said = b'\x1e{"event": "said"}\n'
    assert Reading(said + _request("/") * 49, stream="events").last.text() == ["said"]
    assert Reading(said + _request("/") * LAST_LINES, stream="events").last.text() == []


def test_lines_are_put_together_from_parts_and_the_last_needs_no_end() -> None:
    reading = Reading(b"one", b" line\ntwo\n\nthr", b"ee")
    assert reading.texts == ["one line", "two", "three"]


def test_bytes_that_are_no_text_do_no_harm() -> None:
    assert "odd" in Reading(b"\xff\xfe\x00 odd\n").texts[0]


def test_a_line_that_is_too_long_comes_in_marked_parts() -> None:
    long = b"x" * (2 * LONGEST_LINE_BYTES + 10_000)
    chunks = [long[start : start + 50_000] for start in range(0, len(long), 50_000)]
    found = Reading(b"before\n", *chunks, b"\nafter\n").fields
    first, *parts, last = found
    texts = [event["event"] for event in found]
    assert (texts[0], texts[-1]) == ("before", "after")
    assert "part" not in first
    assert "part" not in last
    assert "".join(part["event"] for part in parts) == long.decode()
    assert [part["part"] for part in parts] == list(range(1, len(parts) + 1))
    assert [part.get("last_part", False) for part in parts] == [False] * (len(parts) - 1) + [True]


def test_lines_beyond_the_rate_are_dropped_and_counted() -> None:
    reading = Reading(b"y\n" * 100, b"last\n", rate=10)
    assert reading.texts == ["y"] * 10
    assert sum(reading.dropped) == 91
    assert reading.last.text()[-1] == "last"


def test_the_last_lines_are_kept_and_requests_left_out() -> None:
    lines = [b"line %d\n" % number for number in range(100)]
    last = Reading(*lines).last
    assert len(last.text()) == LAST_LINES
    assert last.text()[-1] == "line 99"
    assert Reading(b'\x1e{"event": "request"}\n', stream="events").last.text() == []


def test_the_last_lines_show_the_traceback_of_an_event() -> None:
    event = {"event": "cannot load", "error": "why", "exception": "Traceback\n  File x"}
    last = Reading(b"\x1e" + json.dumps(event).encode() + b"\n", stream="events").last
    assert last.text() == ["cannot load: why", "Traceback", "  File x"]


def test_what_is_kept_of_events_is_bounded() -> None:
    event = {"event": "x" * 200_000, "more": [[]] * 10_000, "exception": "y\n" * 10}
    line = b"\x1e" + json.dumps(event).encode() + b"\n"
    chunks = [line[start : start + 50_000] for start in range(0, len(line), 50_000)]
    last = Reading(*chunks, stream="events").last
    assert last.text() == ["x" * 4096, *["y"] * 10]
    assert "more" not in str(last._lines)


def test_a_descriptor_that_is_always_readable_leaves_the_loop_to_others() -> None:
    """In turns of the loop, each of which a busy reader may hold up for one slice."""

    async def main() -> None:
        loop, budget = asyncio.get_running_loop(), ReadBudget()
        reading, writing = os.pipe()
        os.write(writing, b"x")
        slept = 0.0

        def busy() -> bool:
            nonlocal slept
            slept += SLICE_SECONDS / 2
            end = loop.time() + SLICE_SECONDS / 2
            while loop.time() < end:
                pass
            return True

        reader = BoundedReader(reading, busy, budget)
        start = loop.time()
        while loop.time() < start + 0.4:  # noqa: ASYNC110  # other work of the loop
            await asyncio.sleep(0)
        assert budget.busy == 1
        assert 0 < slept < 0.2
        reader.close()
        assert budget.busy == 0
        os.close(reading)
        os.close(writing)

    asyncio.run(main())


def test_what_comes_soon_after_another_is_read_a_little_later_and_together() -> None:
    async def main() -> None:
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        seen: list[bytes] = []

        def step() -> bool:
            try:
                seen.append(os.read(reading, 100))
            except BlockingIOError:
                return False
            return True

        reader = BoundedReader(reading, step, ReadBudget(), rest=3600.0)
        os.write(writing, b"a")
        while not seen:  # noqa: ASYNC110
            await asyncio.sleep(0)
        os.write(writing, b"b")
        while len(seen) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0)
        os.write(writing, b"c")
        for _ in range(10):
            await asyncio.sleep(0)
        assert seen == [b"a", b"b"]  # it rests for an hour
        reader.close()
        os.close(reading)
        os.close(writing)

    asyncio.run(main())


def test_a_reader_that_rests_goes_on_and_ends_its_rest() -> None:
    async def main() -> None:
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        seen = b""

        def step() -> bool:
            nonlocal seen
            try:
                seen += os.read(reading, 100)
            except BlockingIOError:
                return False
            return True

        budget = ReadBudget()
        reader = BoundedReader(reading, step, budget, rest=0.001)
        for number in range(1, 200):
            os.write(writing, b"x")
            while len(seen) < number and number % 3:  # noqa: ASYNC110
                await asyncio.sleep(0)
        while len(seen) < 199:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert budget.busy == 0
        reader.close()
        os.close(reading)
        os.close(writing)

    asyncio.run(main())


def test_a_reader_goes_on_after_a_fault() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda *_: None)
        reading, writing = os.pipe()
        seen: list[bytes] = []

        def step() -> bool:
            seen.append(os.read(reading, 1))
            if seen == [b"a"]:
                raise ValueError
            return False

        reader = BoundedReader(reading, step, ReadBudget())
        os.write(writing, b"ab")
        while len(seen) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0)
        reader.close()
        os.close(reading)
        os.close(writing)

    asyncio.run(main())
