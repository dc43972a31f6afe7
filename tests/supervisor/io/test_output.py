"""What workers write, read from real pipes."""

from __future__ import annotations

import asyncio
import json
import os

import pytest

from servd.supervisor.io.output import LAST_LINES, LONGEST_LINE_BYTES
from servd.supervisor.io.reader import SLICE_SECONDS, BoundedReader, ReadBudget
from servd.supervisor.io.rest import Rest

from support.worker_output import Reading


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

        reader = BoundedReader(reading, step, ReadBudget(), rest=Rest(reading, 3600.0))
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
        reader = BoundedReader(reading, step, budget, rest=Rest(reading, 0.001))
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
