"""How `servd.depends` makes a call."""

from __future__ import annotations

import asyncio
import functools
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from servd.client.transport import AsyncDependencyTransport

from support.harness import DEADLINE, Servd, ServdProcess, wait_until

GATEWAY = """
    import asyncio, httpx, servd
    from fastapi import FastAPI, Request, WebSocket
    from fastapi.responses import JSONResponse, StreamingResponse

    app = FastAPI()
    tasks = []

    @app.exception_handler(httpx.TransportError)
    async def failed(_, error):
        return JSONResponse({"kind": type(error).__name__, "text": str(error)}, 502)

    async def after_a_while():
        await asyncio.sleep(2.5)
        answer = await servd.depends("backend").get("/quick")
        print("called:", answer.json(), flush=True)
        return answer.text

    @app.get("/streams")
    async def streams():
        async def parts():
            yield "first\\n"
            yield await after_a_while()
        return StreamingResponse(parts())

    @app.get("/leaves")
    async def leaves():
        tasks.append(asyncio.create_task(after_a_while()))

    @app.websocket("/talks")
    async def talks(socket: WebSocket):
        await socket.accept()
        await socket.send_text(await after_a_while())

    @app.get("/sleeps")
    async def sleeps():
        await asyncio.sleep(1.9)

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    async def call(request: Request, path: str, sync: bool = False):
        if sync:
            from starlette.concurrency import run_in_threadpool
            client = servd.depends_sync("backend")
            answer = await run_in_threadpool(client.request, request.method, "/" + path)
        else:
            answer = await servd.depends("backend").request(request.method, "/" + path)
        return JSONResponse(answer.json(), answer.status_code)
"""

BACKEND = """
    import asyncio
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/slow")
    async def slow():
        await asyncio.sleep(100000)

    @app.get("/quick")
    async def quick():
        return {"answer": 42}
"""

BREAKS_OFF = """
    import socket, sys, threading

    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    lines = []

    def serve(connection):
        with connection:
            line = connection.recv(65536).split(b" ")
            lines.append(line[0])
            if len([l for l in lines if l == line[0]]) < 3:
                return  # breaks the connection off before any answer
            body = f'{{"attempts": {lines.count(line[0])}}}'.encode()
            connection.sendall(b"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: %d"
                               b"\\r\\n\\r\\n%s" % (len(body), body))

    while True:
        threading.Thread(target=serve, args=listener.accept()[:1]).start()
"""


def serve(servd: Servd, backend: str, extra: str = "") -> ServdProcess:
    return servd(
        f"""
        [services.backend]
        {backend}
        [services.gateway]
        app = "gateway:app"
        listen = "127.0.0.1:0"
        depends_on = ["backend"]
        {extra}
        """,
        gateway_py=GATEWAY,
        backend_py=BACKEND,
        breaks_py=BREAKS_OFF,
    ).ready()


@pytest.mark.parametrize("query", ["", "?sync=true"])
def test_a_call_takes_no_longer_than_the_request_that_makes_it_has_left(
    servd: Servd, query: str
) -> None:
    """The caller gets the error in time to send its own answer, at the end of its time: not much
    later than another request of the worker wakes up that slept for almost as long.
    """
    daemon = serve(servd, 'app = "backend:app"', 'timeouts.request = "2s"')

    def took(path: str) -> tuple[httpx.Response, float]:
        started = time.monotonic()
        return daemon.get("gateway", path), time.monotonic() - started

    with ThreadPoolExecutor(2) as pool:
        called, slept = pool.map(took, ("/slow" + query, "/sleeps"))
    answer = called[0]
    assert 1.9 < called[1] < slept[1] + 2
    assert answer.status_code in (502, 504)
    if answer.status_code == 502:
        assert answer.json()["kind"] == "ReadTimeout"
        assert 'the dependency "backend" did not answer' in answer.json()["text"]
    assert daemon.get("gateway", "/quick" + query).json() == {"answer": 42}


def test_what_has_no_deadline_any_more_may_call_for_as_long_as_it_likes(servd: Servd) -> None:
    """An open stream, a background task of a request, and a WebSocket."""
    daemon = serve(servd, 'app = "backend:app"', 'timeouts.request = "2s"')
    assert daemon.get("gateway", "/streams").text == 'first\n{"answer":42}'
    assert daemon.get("gateway", "/leaves").status_code == 200
    wait_until(lambda: len(daemon.lines("called: {'answer': 42}")) == 2, "the task's call")
    with connect(
        daemon.url("gateway").replace("http", "ws") + "/talks", open_timeout=DEADLINE
    ) as socket:
        assert socket.recv(DEADLINE) == '{"answer":42}'


@pytest.mark.parametrize("query", ["", "?sync=true"])
def test_an_idempotent_call_is_made_again_when_its_connection_breaks(
    servd: Servd, query: str
) -> None:
    daemon = serve(servd, 'command = ["python3", "breaks.py", "{port}"]\nready = "started"')
    url = daemon.url("gateway")
    wait_until(lambda: httpx.post(url).json().get("kind") != "ConnectError", "the program listens")
    answer = httpx.get(url + "/" + query)
    assert answer.json() == {"attempts": 3}


def test_a_call_that_is_not_idempotent_is_made_once(servd: Servd) -> None:
    daemon = serve(servd, 'command = ["python3", "breaks.py", "{port}"]\nready = "started"')
    url = daemon.url("gateway")
    wait_until(lambda: httpx.get(url).status_code == 200, "the program listens")
    answer = httpx.post(url)
    assert answer.status_code == 502
    assert answer.json()["kind"] in ("RemoteProtocolError", "ReadError")
    assert answer.json()["text"].startswith('the dependency "backend" did not answer (http://')


@pytest.mark.parametrize("query", ["", "?sync=true"])
def test_a_dependency_that_is_down_is_named_with_its_address(servd: Servd, query: str) -> None:
    listens_nowhere = '["python3", "-c", "import time; time.sleep(1000)", "{port}"]'
    daemon = serve(servd, f'command = {listens_nowhere}\nready = "started"')
    answer = daemon.get("gateway", "/quick" + query)
    assert answer.status_code == 502
    assert answer.json()["kind"] == "ConnectError"
    place = r"http://127\.0\.0\.1:\d+"
    assert re.match(rf'the dependency "backend" is down \({place}\): ', answer.json()["text"])


def test_a_socket_that_is_gone_is_a_dependency_that_is_down(tmp_path: Path) -> None:
    path = tmp_path / "backend.sock"
    make = functools.partial(httpx.AsyncHTTPTransport, uds=str(path))

    async def call() -> None:
        transport = AsyncDependencyTransport("backend", f"unix:{path}", make)
        async with httpx.AsyncClient(transport=transport) as client:
            await client.get("http://backend/")

    with pytest.raises(httpx.ConnectError) as error:
        asyncio.run(call())
    assert str(error.value).startswith(f'the dependency "backend" is down (unix:{path}): ')
