"""The last lines of the log, and those who follow them."""

from __future__ import annotations

import asyncio
import threading

from servd.daemon.log import buffer
from servd.daemon.log.buffer import BYTES, LINES, MOST_SERVICES, LogBuffer
from servd.daemon.log.event import LogEvent


def add(journal: LogBuffer, service: str, line: bytes) -> None:
    journal.add(LogEvent.by_worker(service, line, line.count(b"\n") + 1))


def texts(journal: LogBuffer, after: int = 0, *services: str) -> list[bytes]:
    return [line.text for line in journal.after(after, services, most=50_000)[0]]


def test_lines_of_all_services_come_in_the_order_in_which_they_were_written() -> None:
    found = LogBuffer()
    for number in range(6):
        add(found, "ab"[number % 2], b"%d" % number)
    assert texts(found) == [b"0", b"1", b"2", b"3", b"4", b"5"]
    assert texts(found, 3) == [b"3", b"4", b"5"]
    assert texts(found, 0, "b") == [b"1", b"3", b"5"]
    assert [line.text for line in found.tail(2)] == [b"4", b"5"]
    assert [line.text for line in found.tail(2, ["a"])] == [b"2", b"4"]
    assert found.tail(0) == []


def test_the_log_kept_is_bounded_in_lines_and_bytes_for_each_service() -> None:
    found = LogBuffer()
    add(found, "quiet", b"still here")
    for number in range(3 * LINES):
        add(found, "busy", b"%d" % number)
    assert len(texts(found, 0, "busy")) == LINES
    assert texts(found, 0, "quiet") == [b"still here"]
    for _ in range(100):
        add(found, "big", b"x" * (BYTES // 10))
    assert sum(map(len, texts(found, 0, "big"))) <= BYTES
    add(found, "big", b"y" * (3 * BYTES))
    assert texts(found, 0, "big") == [b"y" * (3 * BYTES)]  # one is always kept


def test_many_busy_services_share_what_is_kept_of_all() -> None:
    found = LogBuffer()
    for _ in range(200):
        for number in range(200):
            add(found, f"s{number}", b"x" * 2000)
    assert sum(len(line) for line in texts(found)) <= buffer.BYTES_OF_ALL
    assert len(texts(found, 0, "s7")) == buffer.BYTES_OF_ALL // 200 // 2000


def test_a_follower_that_fell_behind_is_told_so_and_nobody_else() -> None:
    found = LogBuffer()
    for number in range(LINES + 10):
        add(found, "busy", b"%d" % number)
    assert found.after(0)[1]
    assert found.after(9)[1]
    assert not found.after(10)[1]
    assert not found.after(0, ["quiet"])[1]


def test_services_that_come_and_go_do_not_make_it_grow() -> None:
    found = LogBuffer()
    for number in range(MOST_SERVICES + 50):
        add(found, f"s{number}", b"x")
    assert len(texts(found)) == MOST_SERVICES


def test_a_follower_wakes_for_a_line_from_any_thread_and_for_the_end() -> None:
    async def main() -> None:
        found = LogBuffer()
        for _ in range(50):
            newest = found.newest
            threading.Thread(target=add, args=(found, "web", b"x")).start()
            await asyncio.wait_for(found.more(newest, patience=600), timeout=90)
            assert found.newest == newest + 1
        waiting = asyncio.ensure_future(found.more(found.newest, patience=600))
        await asyncio.sleep(0)
        found.close()
        await asyncio.wait_for(waiting, timeout=90)

    asyncio.run(main())


def test_a_follower_that_nothing_comes_for_is_let_go_after_its_patience() -> None:
    async def main() -> None:
        await asyncio.wait_for(LogBuffer().more(0, patience=0.01), timeout=90)

    asyncio.run(main())


def test_the_bounds_are_what_the_readme_says() -> None:
    assert (buffer.LINES, buffer.BYTES) == (1000, 256 * 1024)


def test_lines_that_come_together_have_a_number_each() -> None:
    found = LogBuffer()
    add(found, "a", b"1")
    add(found, "a", b"2\n3\n4")
    add(found, "b", b"5")
    add(found, "a", b"6\n7")
    lines = found.after(0)[0]
    assert [(line.number, line.text) for line in lines] == [(n, b"%d" % n) for n in range(1, 8)]
    assert texts(found, 2) == [b"3", b"4", b"5", b"6", b"7"]
    assert texts(found, 3, "a") == [b"4", b"6", b"7"]
    assert [line.text for line in found.tail(3)] == [b"5", b"6", b"7"]
    assert [line.text for line in found.tail(2, ["a"])] == [b"6", b"7"]


def test_lines_that_come_together_are_bounded_as_others_are() -> None:
    found, alone = LogBuffer(), LogBuffer()
    for block in range(20):
        numbers = range(block * 170, (block + 1) * 170)
        add(found, "busy", b"\n".join(b"%d" % number for number in numbers))
        for number in numbers:
            add(alone, "busy", b"%d" % number)
        assert found.after(0) == alone.after(0)
    for size in (1, 3, 400):
        add(found, "big", b"\n".join([b"x" * 1000] * size))
        kept = texts(found, 0, "big")
        assert sum(map(len, kept)) <= BYTES
    assert len(kept) > BYTES // 1000 - 2
    assert found.after(0, ["big"])[1]
    assert not found.after(found.newest - len(kept), ["big"])[1]
    add(found, "big", b"y\n" + b"y" * (3 * BYTES))
    assert texts(found, 0, "big") == [b"y" * (3 * BYTES)]
