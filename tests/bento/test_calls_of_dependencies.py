"""Calls of `bentoml.depends()`: whose request they belong to, and how they fail and end."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support.harness import DEADLINE, Servd, ServdProcess, free_port, wait_until
from support.with_bentoml import GATEWAY, PYTHON, bentoml_serve, environ

IDENTITY = """
    import asyncio
    from typing import AsyncGenerator

    import bentoml

    def identity(ctx: bentoml.Context) -> str:
        return ctx.request.headers.get("x-request-id", "none")

    @bentoml.service
    class Inner:
        @bentoml.api
        def mine(self, ctx: bentoml.Context) -> str:
            return identity(ctx)

        @bentoml.api
        async def stream(self, ctx: bentoml.Context) -> AsyncGenerator[str, None]:
            yield identity(ctx)

    @bentoml.service(threads=2)
    class Gateway:
        inner = bentoml.depends(Inner)

        @bentoml.api
        def from_a_thread(self) -> str:
            return self.inner.mine()

        @bentoml.api
        async def from_the_loop(self) -> str:
            return await self.inner.to_async.mine()

        @bentoml.api
        async def from_a_stream(self) -> AsyncGenerator[str, None]:
            async for part in self.inner.stream():
                yield part

        @bentoml.task
        async def from_a_task(self) -> str:
            return await self.inner.to_async.mine()

        @bentoml.api(batchable=True, max_latency_ms=60000)
        async def from_a_batch(self, texts: list[str]) -> list[str]:
            found = await self.inner.to_async.mine()
            return [found for _ in texts]

        @bentoml.api
        async def by_a_client_of_bentoml(self, url: str) -> str:
            async with bentoml.AsyncHTTPClient(url) as client:
                return await client.from_the_loop()
"""


def asked(daemon: ServdProcess, path: str, body: Any = None, identity: str = "") -> httpx.Response:
    headers = {"x-request-id": identity} if identity else {}
    url = f"{daemon.url('gw')}/{path}"
    answer = httpx.post(url, json=body or {}, headers=headers, timeout=DEADLINE)
    assert answer.status_code == 200, answer.text
    return answer


def test_the_request_id_reaches_dependencies(servd: Servd) -> None:
    daemon = servd(GATEWAY, service_py=IDENTITY, environ=environ(servd.folder)).ready()
    for path in ("from_a_thread", "from_the_loop", "from_a_stream"):
        assert asked(daemon, path, identity=f"given-{path}").text == f"given-{path}"
        own = asked(daemon, path).text
        assert len(own) == 22
        calls = (daemon.wait_for("request", service=s, request_id=own) for s in ("gw", "gw.inner"))
        outer, inner = calls
        assert outer["url.path"] == f"/{path}"
        assert inner["url.path"] in ("/mine", "/stream")
    body = {"url": daemon.url("gw")}
    answer = asked(daemon, "by_a_client_of_bentoml", body, identity="through-a-client")
    assert answer.text == "through-a-client"


def test_the_request_id_reaches_dependencies_of_tasks_and_no_batch_has_that_of_another(
    servd: Servd,
) -> None:
    daemon = servd(GATEWAY, service_py=IDENTITY, environ=environ(servd.folder)).ready()
    task = asked(daemon, "from_a_task/submit", identity="of-the-task").json()["task_id"]
    url = f"{daemon.url('gw')}/from_a_task/get"
    done = wait_until(
        lambda: (answer := httpx.get(url, params={"task_id": task})).status_code == 200 and answer,
        "the task is done",
    )
    assert done.text == "of-the-task"
    found = {asked(daemon, "from_a_batch", {"texts": ["a"]}, "first").json()[0]}
    found |= {asked(daemon, "from_a_batch", {"texts": ["b"]}, "second").json()[0]}
    assert not found & {"first", "second"}


STREAMS = """
    import asyncio
    import time
    from pathlib import Path
    from typing import AsyncGenerator, Generator

    import bentoml

    def closed(name):
        Path(f"{name}.closed").touch()

    @bentoml.service
    class Inner:
        @bentoml.api
        async def endless(self) -> AsyncGenerator[str, None]:
            try:
                while True:
                    yield "more "
                    await asyncio.sleep(0.01)
            finally:
                closed("inner-endless")

        @bentoml.api
        async def silent(self) -> AsyncGenerator[str, None]:
            try:
                yield "only "
                await asyncio.sleep(100000)
            finally:
                closed("inner-silent")

        @bentoml.api
        async def flood(self) -> AsyncGenerator[str, None]:
            try:
                while True:
                    yield "x" * 65536
                    await asyncio.sleep(0)
            finally:
                closed("inner-flood")

        @bentoml.api
        def threaded(self) -> Generator[str, None, None]:
            try:
                while True:
                    yield "more "
                    time.sleep(0.01)
            finally:
                closed("inner-threaded")

        @bentoml.api
        async def whole(self) -> AsyncGenerator[str, None]:
            for number in range(100):
                yield f"{number} "

    @bentoml.service
    class Gateway:
        inner = bentoml.depends(Inner)

        @bentoml.api
        async def endless(self) -> AsyncGenerator[str, None]:
            async for part in self.inner.endless():
                yield part

        @bentoml.api
        async def silent(self) -> AsyncGenerator[str, None]:
            async for part in self.inner.silent():
                yield part

        @bentoml.api
        async def flood(self) -> AsyncGenerator[str, None]:
            async for part in self.inner.flood():
                yield part

        @bentoml.api
        def threaded(self) -> Generator[str, None, None]:
            yield from self.inner.threaded()

        @bentoml.api
        async def first(self) -> str:
            async for part in self.inner.endless():
                return part

        @bentoml.api
        async def whole(self) -> AsyncGenerator[str, None]:
            async for part in self.inner.whole():
                yield part
"""


@contextlib.contextmanager
def begun(url: str, path: str) -> Iterator[None]:
    """A client that has read the beginning of a stream, and goes at the end of the block."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), DEADLINE) as client:
        head = f"POST /{path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        client.sendall(f"{head}Content-Length: 2\r\n\r\n{{}}".encode())
        heard = b""
        while b"\r\n\r\n" not in heard or heard.endswith(b"\r\n\r\n"):
            heard += client.recv(4096)
        assert heard.startswith(b"HTTP/1.1 200")
        yield


def none_in_flight(daemon: ServdProcess) -> None:
    """Waits until the requests of all services have ended."""
    services = ("gw", "gw.inner")
    wait_until(
        lambda: not any(daemon.metric("servd_requests_in_flight", service=s) for s in services),
        "no request is left",
    )


@pytest.mark.parametrize("path", ["endless", "silent", "flood", "threaded"])
def test_a_stream_whose_client_has_gone_ends_in_the_dependency_too(servd: Servd, path: str) -> None:
    daemon = servd(GATEWAY, service_py=STREAMS, environ=environ(servd.folder)).ready()
    closed = servd.folder / f"inner-{path}.closed"
    with begun(daemon.url("gw"), path):
        assert not closed.exists()
        assert daemon.metric("servd_requests_in_flight", service="gw.inner") == 1
    wait_until(closed.exists, "the generator of the dependency is closed")
    none_in_flight(daemon)
    assert daemon.stop() == 0


def test_a_stream_that_the_service_stops_reading_ends_and_whole_ones_come_through(
    servd: Servd,
) -> None:
    daemon = servd(GATEWAY, service_py=STREAMS, environ=environ(servd.folder)).ready()
    assert asked(daemon, "first").text == "more "
    wait_until((servd.folder / "inner-endless.closed").exists, "it is closed")
    none_in_flight(daemon)
    wanted = "".join(f"{number} " for number in range(100))
    for _ in range(3):
        assert asked(daemon, "whole").text == wanted
    none_in_flight(daemon)


REFUSALS = """
    from typing import Annotated, Any

    import bentoml
    from bentoml.exceptions import InvalidArgument
    from pydantic import BaseModel, Field

    class Item(BaseModel):
        count: int

    @bentoml.service
    class Inner:
        @bentoml.api
        def bounded(self, count: Annotated[int, Field(ge=1)]) -> int:
            return count

        @bentoml.api
        def item(self, item: Item) -> int:
            return item.count

        @bentoml.api
        def refuses(self, count: int) -> int:
            raise InvalidArgument("count is too small")

        @bentoml.api
        def answers_wrongly(self, count: int) -> int:
            return "many"

        @bentoml.api
        def fails(self, count: int) -> int:
            raise ValueError("on purpose")

    @bentoml.service
    class Gateway:
        inner = bentoml.depends(Inner)

        @bentoml.api
        def bounded(self, count: Any) -> int:
            return self.inner.bounded(count)

        @bentoml.api
        async def bounded_in_the_loop(self, count: Any) -> int:
            return await self.inner.to_async.bounded(count)

        @bentoml.api
        def item(self, count: Any) -> int:
            return self.inner.item({"count": f"{count}?"})

        @bentoml.api
        def nothing(self, count: Any) -> int:
            return self.inner.bounded()

        @bentoml.api
        def another(self, count: Any) -> int:
            return self.inner.bounded(amount=count)

        @bentoml.api
        def refuses(self, count: Any) -> int:
            return self.inner.refuses(1)

        @bentoml.api
        def answers_wrongly(self, count: Any) -> int:
            return self.inner.answers_wrongly(1)

        @bentoml.api
        def fails(self, count: Any) -> int:
            return self.inner.fails(1)
"""
CASES = {
    "bounded": 400, "bounded_in_the_loop": 400, "item": 400, "nothing": 400, "another": 400,
    "refuses": 400, "answers_wrongly": 400, "fails": 500,
}  # fmt: skip


def refusals(url: str) -> dict[str, tuple[int, str, str]]:
    """What a client gets for each: status, type and body."""
    found = {}
    for path in CASES:
        answer = httpx.post(f"{url}/{path}", json={"count": "0"}, timeout=DEADLINE)
        found[path] = (answer.status_code, answer.headers["content-type"], answer.text)
    return found


def test_a_dependency_that_refuses_its_input_looks_the_same_in_development(servd: Servd) -> None:
    """Under `bentoml serve --development` the dependencies are part of the service: their inputs
    are not validated. servd runs them as in production.
    """
    servd.write(service_py=REFUSALS)
    with bentoml_serve("service:Gateway", servd.folder) as url:
        wanted = refusals(url)
    assert {path: status for path, (status, _, _) in wanted.items()} == CASES
    assert "greater than or equal to 1" in wanted["bounded"][2]
    port = free_port()
    servd.write(servd_toml=GATEWAY.replace("127.0.0.1:0", f"127.0.0.1:{port}"))
    serve = ["serve", "service:Gateway", "--host=127.0.0.1", f"--port={port}"]
    for argv in (
        serve,
        [*serve, "--development"],
        [*serve, "--development", "--reload"],
        ["dev", "--config", "servd.toml"],
    ):
        daemon = servd.run(*argv, interpreter=PYTHON, environ=environ(servd.folder))
        is_ready(daemon)
        assert refusals(f"http://127.0.0.1:{port}") == wanted
        assert daemon.stop() == 0


def is_ready(daemon: ServdProcess) -> None:
    """Waits until a daemon whose log is for people is ready."""
    wait_until(lambda: "servd ready" in daemon.output, "it is ready")
