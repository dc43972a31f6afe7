"""The sockets that lead to services over handles, with a handle that is none of Ray's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from servd.engines.ray import bridge
from servd.engines.ray.bridge import Bridge


class Handle:
    """Answers with what it was asked; `/breaks` ends in the middle."""

    async def remote(self, call: tuple[Any, ...]) -> AsyncIterator[Any]:
        method, target, headers, body = call
        if target == b"/gone":
            raise RuntimeError("no replica")
        yield (201, [(b"x-host", dict(headers)[b"host"])])
        yield method.encode() + b" " + target
        if target == b"/breaks":
            raise RuntimeError("the replica ended")
        yield b" " + body


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    monkeypatch.setattr(bridge, "handle_of", lambda service, method: Handle())
    path = Bridge("inner").address.removeprefix("file://")
    transport = httpx.HTTPTransport(uds=path)
    with httpx.Client(transport=transport, base_url="http://inner") as client:
        yield client


def test_a_request_goes_through_as_it_is(client: httpx.Client) -> None:
    answer = client.post("/a%20b?c=d", content=b"body")
    assert (answer.status_code, answer.headers["x-host"]) == (201, "inner")
    assert answer.text == "POST /a%20b?c=d body"


def test_a_service_that_does_not_answer_is_a_bad_gateway(client: httpx.Client) -> None:
    assert client.get("/gone").status_code == 502


def test_an_answer_that_breaks_is_cut(client: httpx.Client) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        client.get("/breaks")
