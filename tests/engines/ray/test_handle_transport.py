"""`servd.depends` over handles, with handles that are none of Ray's."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

import servd
from servd.client.depends import _address, _client
from servd.engines.ray import transport

CALLS: list[tuple[str, tuple[Any, ...]]] = []


class Response:
    """What a handle gives back, for sync and async code."""

    def __init__(self, method: str, call: tuple[Any, ...]) -> None:
        self.method, self.call = method, call
        self.cancelled = False
        CALLS.append((method, call))

    def parts(self) -> list[Any]:
        verb, target, _, body = self.call
        return [(200, [(b"x-a", b"b")]), verb.encode() + b" ", target, b" " + body]

    def whole(self) -> tuple[Any, ...]:
        (status, headers), *pieces = self.parts()
        return status, headers, b"".join(pieces)

    def __await__(self) -> Any:
        if self.call[1] == b"/never":
            return asyncio.Event().wait().__await__()
        return asyncio.sleep(0, self.whole()).__await__()

    def result(self, timeout_s: float | None = None) -> Any:
        if self.call[1] == b"/never":
            raise TimeoutError
        return self.whole()

    async def __aiter__(self) -> AsyncIterator[Any]:
        for part in self.parts():
            yield part

    def __iter__(self) -> Iterator[Any]:
        return iter(self.parts())

    def cancel(self) -> None:
        self.cancelled = True


class Handle:
    def __init__(self, method: str) -> None:
        self.method = method

    def remote(self, call: tuple[Any, ...]) -> Response:
        return Response(self.method, call)


@pytest.fixture(autouse=True)
def handles(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(transport, "handle_of", lambda service, method: Handle(method))
    addresses = {"inner": {"url": "http://inner", "engine": "ray"}}
    monkeypatch.setenv("SERVD_DEPENDENCIES", json.dumps(addresses))
    CALLS.clear()
    yield
    with warnings.catch_warnings():  # other tests leave clients with open connections there
        warnings.simplefilter("ignore", ResourceWarning)
        _client.cache_clear()
    _address.cache_clear()


def test_an_answer_that_is_read_at_once_is_one_message() -> None:
    async def ask() -> httpx.Response:
        return await servd.depends("inner").post("/a?b=c", content=b"body")

    answer = asyncio.run(ask())
    assert (answer.status_code, answer.text) == (200, "POST /a?b=c body")
    assert [method for method, _ in CALLS] == ["servd_answer"]
    headers = dict(CALLS[0][1][2])
    assert (headers[b"host"], headers[b"content-length"]) == (b"inner", b"4")


def test_an_answer_that_streams_comes_in_pieces() -> None:
    async def ask() -> list[bytes]:
        async with servd.depends("inner").stream("GET", "/x") as answer:
            return [piece async for piece in answer.aiter_raw()]

    assert asyncio.run(ask()) == [b"GET ", b"/x", b" "]
    assert [method for method, _ in CALLS] == ["servd_stream"]


def test_sync_code_has_the_same() -> None:
    client = servd.depends_sync("inner")
    assert client.get("/x").text == "GET /x "
    with client.stream("GET", "/x") as answer:
        assert list(answer.iter_raw()) == [b"GET ", b"/x", b" "]
    assert [method for method, _ in CALLS] == ["servd_answer", "servd_stream"]


def test_a_limit_names_the_dependency() -> None:
    async def ask() -> None:
        await servd.depends("inner").get("/never", timeout=0.05)

    said = r'the dependency "inner" did not answer \(ray\): no answer within 0.05 s'
    with pytest.raises(httpx.ReadTimeout, match=said):
        asyncio.run(ask())
    with pytest.raises(httpx.ReadTimeout, match='"inner" did not answer'):
        servd.depends_sync("inner").get("/never", timeout=0.05)
