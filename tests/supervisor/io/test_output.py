"""What workers write, read from real pipes."""

from __future__ import annotations

import asyncio
import json
import os

from servd.daemon.log.event import LogEvent
from servd.supervisor.io.output import LAST_LINES, LastLines, OutputPipe


def read(*chunks: bytes) -> tuple[list[bytes], LastLines]:
    """Events that a pipe gives for chunks written one after the other."""
    events: list[bytes] = []
    last = LastLines()

    async def main() -> None:
        reading, writing = os.pipe()
        pipe = OutputPipe(
            reading,
            {"service": "web", "pid": 7},
            "stdout",
            last,
            lambda service, line: events.append(LogEvent.by_worker(service, line).json),
            lambda: "now",
        )
        for chunk in chunks:
            os.write(writing, chunk)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        os.close(writing)
        pipe.drain()
        pipe.close()

    asyncio.run(main())
    return events, last


def test_a_printed_line_becomes_an_event_of_its_service() -> None:
    events, _ = read(b"hello\n")
    assert json.loads(events[0]) == {
        "timestamp": "now",
        "level": "info",
        "event": "hello",
        "stream": "stdout",
        "service": "web",
        "pid": 7,
    }


def test_a_marked_line_is_passed_on_as_it_is() -> None:
    events, _ = read(b'\x1e{"event": "x"}\n')
    assert events == [b'{"event": "x"}']


def test_lines_are_put_together_from_parts_and_the_last_needs_no_end() -> None:
    events, _ = read(b"one", b" line\ntwo\n\nthr", b"ee")
    assert [json.loads(event)["event"] for event in events] == ["one line", "two", "three"]


def test_bytes_that_are_no_text_do_no_harm() -> None:
    events, _ = read(b"\xff\xfe\x00 odd\n")
    assert "odd" in json.loads(events[0])["event"]


def test_the_last_lines_are_kept_and_requests_left_out() -> None:
    lines = [b"line %d\n" % number for number in range(100)]
    _, last = read(*lines, b'\x1e{"event": "request"}\n')
    assert len(last.text()) == LAST_LINES - 1
    assert last.text()[-1] == "line 99"


def test_the_last_lines_show_the_traceback_of_an_event() -> None:
    event = {"event": "cannot load", "error": "why", "exception": "Traceback\n  File x"}
    _, last = read(b"\x1e" + json.dumps(event).encode() + b"\n")
    assert last.text() == ["cannot load: why", "Traceback", "  File x"]
