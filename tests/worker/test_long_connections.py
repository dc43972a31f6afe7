"""WebSockets, event streams and uploads, through a worker and through its end."""

from __future__ import annotations

import threading

import httpx
import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

from support.apps import LASTING
from support.harness import DEADLINE, Servd

CONFIG = '[services.web]\napp = "main:app"\nlisten = "127.0.0.1:0"\ntimeouts = { drain = "1h" }\n'


def test_a_websocket_echoes_and_ends_with_1012_at_a_stop(servd: Servd) -> None:
    daemon = servd(CONFIG.replace("1h", "1s"), main_py=LASTING).ready()
    url = daemon.url("web").replace("http", "ws") + "/echo"
    with connect(url, open_timeout=DEADLINE) as socket:
        socket.send("hello")
        assert socket.recv(DEADLINE) == "hello"
        assert daemon.stop() == 0
        with pytest.raises(ConnectionClosedError) as closed:
            socket.recv(DEADLINE)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012


def test_a_stream_that_has_begun_runs_to_its_end_at_a_stop(servd: Servd) -> None:
    daemon = servd(CONFIG, main_py=LASTING).ready()
    with httpx.stream("GET", f"{daemon.url('web')}/stream?count=15", timeout=DEADLINE) as answer:
        lines = answer.iter_lines()
        assert next(lines) == "data: 0"
        stopping = threading.Thread(target=daemon.stop)
        stopping.start()
        assert [line for line in lines if line][-1] == "data: 14"
        stopping.join()
    assert daemon.wait() == 0


def test_an_upload_in_chunks_arrives_whole(servd: Servd) -> None:
    import hashlib

    chunks = [bytes([number]) * 100_000 for number in range(50)]
    daemon = servd(CONFIG, main_py=LASTING).ready()
    answer = httpx.post(f"{daemon.url('web')}/upload", content=iter(chunks), timeout=DEADLINE)
    assert answer.json() == hashlib.sha256(b"".join(chunks)).hexdigest()
