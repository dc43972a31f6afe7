"""Lines on their way into pipes and terminals: all of them, in order, or known as missing."""

from __future__ import annotations

import io
import os
import pty
import socket
import threading
import tty
from collections.abc import Callable
from pathlib import Path

import pytest

from servd.daemon.log.stream import LogStream, whole

LINES = [b"%d " % number + b"x" * (number % 300) for number in range(3000)]
Ends = tuple[int, int]


def a_pipe(_: Path) -> Ends:
    return os.pipe()


def a_socket(_: Path) -> Ends:
    return tuple(end.detach() for end in socket.socketpair())  # type: ignore[return-value]


def a_fifo(folder: Path) -> Ends:
    os.mkfifo(folder / "fifo")
    reading = os.open(folder / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reading, True)
    return reading, os.open(folder / "fifo", os.O_WRONLY)


def a_terminal(_: Path) -> Ends:
    reading, writing = pty.openpty()
    tty.setraw(writing)
    return reading, writing


@pytest.mark.parametrize("make", [a_pipe, a_socket, a_fifo, a_terminal])
def test_more_than_fits_is_written_as_it_is_read(
    make: Callable[[Path], Ends], tmp_path: Path
) -> None:
    reading, writing = make(tmp_path)
    expected = b"".join(line + b"\n" for line in LINES)
    found = bytearray()

    def read() -> None:
        while len(found) < len(expected):
            found.extend(os.read(reading, 5000))

    reader = threading.Thread(target=read)
    reader.start()
    stream = LogStream(io.FileIO(writing, "wb"))
    assert stream.write(LINES[:2000], lambda: True) == (0, "")
    assert stream.write(LINES[2000:], lambda: True) == (0, "")
    reader.join()
    assert found == expected
    stream.close()
    os.close(reading)


@pytest.fixture(params=["Linux", "another system"], autouse=True)
def _system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "Linux":
        monkeypatch.delattr(os, "RWF_NOWAIT")


@pytest.mark.parametrize("make", [a_pipe, a_socket, a_fifo])
def test_what_nobody_reads_is_known_as_missing(
    make: Callable[[Path], Ends], tmp_path: Path
) -> None:
    reading, writing = make(tmp_path)
    lines = LINES * 2
    stream = LogStream(io.FileIO(writing, "wb"))
    left, error = stream.write(lines, lambda: False)
    assert (left > 0, error) == (True, "")
    *written, torn = os.read(reading, 1_000_000).split(b"\n")
    assert written == lines[: whole(lines, left)]
    assert lines[len(written)].startswith(torn)
    assert stream.write([b"later"], lambda: False) == (0, "")
    assert os.read(reading, 100) == (b"\nlater\n" if torn else b"later\n")
    stream.close()
    os.close(reading)


def test_a_reader_that_is_gone_is_an_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stream = LogStream(io.FileIO(writing, "wb"))
    assert stream.write([b"x"], lambda: True) == (2, "Broken pipe")
    stream.close()


@pytest.mark.parametrize(("left", "lines"), [(0, 3), (1, 2), (4, 2), (5, 1), (6, 0), (7, 0)])
def test_a_line_counts_once_its_end_is_written(left: int, lines: int) -> None:
    assert whole([b"a", b"", b"ccc"], left) == lines
