"""Answers of servd's cycle beside Uvicorn's, byte by byte, on the same apps and requests."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, ClassVar, cast
from weakref import WeakSet

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from servd.worker.cycle import LeanCycle, WaitingHeads
from servd.worker.drain import Drain
from servd.worker.keep_alive import IdleConnections, ThriftyProtocol

Pair = tuple[Any, Any]

START = "http.response.start"
BODY = "http.response.body"
DATE = (b"date", b"Sat, 31 Jan 2026 12:00:00 GMT")


class _Wire(asyncio.Transport):
    """Notes what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closed = False

    @property
    def written(self) -> bytes:
        return b"".join(self.writes)

    def write(self, data: Any) -> None:
        if not self.closed:
            self.writes.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def _connected(base: Any, app: Any, defaults: list[Pair]) -> tuple[Any, ServerState, _Wire]:
    """A connection, the state of its server, and what it writes to."""
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="off", interface="asgi3"
    )
    config.load()
    state = ServerState()
    state.default_headers = defaults

    class Protocol(base):  # type: ignore[misc]
        idle = IdleConnections(state.connections, 5.0)
        heads = WaitingHeads(asyncio.get_running_loop())
        head_limit = 65536

    made = Protocol(config, state, {}, asyncio.get_running_loop())
    wire = _Wire()
    made.connection_made(wire)
    return made, state, wire


async def _talk(base: Any, app: Any, requests: bytes, defaults: list[Pair]) -> tuple[bytes, bool]:
    """What a client reads, and whether the connection is closed."""
    made, state, wire = _connected(base, app, defaults)
    made.data_received(requests)
    while state.tasks:
        await asyncio.wait(list(state.tasks), timeout=0.01)
    return wire.written, wire.closed


def both(app: Any, requests: bytes, defaults: list[Pair] | None = None) -> list[tuple[bytes, bool]]:
    """Uvicorn's conversation, and servd's: twice, since it remembers fields."""
    bases = [HttpToolsProtocol, ThriftyProtocol, ThriftyProtocol]
    given = [DATE] if defaults is None else defaults
    return [asyncio.run(_talk(base, app, requests, given)) for base in bases]


def answering(status: int, fields: Any, *parts: bytes) -> Any:
    """An app that sends `parts` as the body."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": START, "status": status, "headers": fields})
        for part in parts[:-1]:
            await send({"type": BODY, "body": part, "more_body": True})
        await send({"type": BODY, "body": parts[-1] if parts else b""})

    return app


def asking(method: bytes = b"GET", version: bytes = b"1.1", fields: bytes = b"") -> bytes:
    return method + b" /a%20b?c=d HTTP/" + version + b"\r\nHost: x\r\n" + fields + b"\r\n"


HEADERS: list[Any] = [
    [],
    [(b"content-length", b"5")],
    [(b"Content-Length", b"5"), (b"X-Odd", b"\xff tab\t")],
    [(b"content-length", b"5"), (b"content-length", b"5")],
    [(b"content-length", b"4")],
    [(b"content-length", b"6")],
    [(b"content-length", b" 5")],
    [(b"content-length", b"\xb2")],
    [(b"content-length", b"-5")],
    [(b"content-length", b"5x")],
    [(b"content-length", b"")],
    [(b"content-length", b"5\r\nx: y")],
    [(b"transfer-encoding", b"Chunked")],
    [(b"Transfer-Encoding", b"gzip"), (b"content-length", b"5")],
    [(b"transfer-encoding", b"chunked"), (b"content-length", b"9")],
    [(b"content-length", b"9"), (b"transfer-encoding", b"chunked")],
    [(b"connection", b"keep-alive, Close"), (b"content-length", b"5")],
    [(b"Connection", b"keep-alive")],
    [(b"x", b"a\r\nset-cookie: b")],
    [(b"x", b"a\nb")],
    [(b"x", b"a\x00b")],
    [(b"x\r\ny", b"a")],
    [(b"x y", b"a")],
    [(b"x:", b"a")],
    [[b"x", b"a"], [b"content-length", b"5"]],
    [(bytearray(b"X"), bytearray(b"a")), (b"content-length", bytearray(b"5"))],
    [("x", "a")],
    [("content-length", "5")],
    [(b"content-length", "5")],
    [(b"x", b"y" * 10_000)],
    ((b"x", b"y"),),
    None,
]


@pytest.mark.parametrize("fields", HEADERS, ids=lambda fields: repr(fields)[:40])
def test_heads_and_bodies_are_sent_as_uvicorn_sends_them(fields: Any) -> None:
    fields = list(fields) if fields is not None and not isinstance(fields, list) else fields
    app = answering(200, fields, b"hel", b"lo")
    for method in (b"GET", b"HEAD"):
        for version in (b"1.1", b"1.0"):
            uvicorns, first, second = both(app, asking(method, version))
            assert first == uvicorns
            assert second == uvicorns


@pytest.mark.parametrize("fields", HEADERS, ids=lambda fields: repr(fields)[:40])
@pytest.mark.parametrize("status", [204, 304])
def test_the_body_of_a_response_that_has_none_is_left_out(status: int, fields: Any) -> None:
    """As that of an answer to HEAD: Uvicorn sends it, or ends the connection."""
    fields = list(fields) if fields is not None and not isinstance(fields, list) else fields
    app = answering(status, fields, b"hel", b"lo")
    uvicorns, _, _ = both(app, asking(b"HEAD"))
    _, first, second = both(app, asking(b"GET"))
    assert first == second == uvicorns


@pytest.mark.parametrize("parts", [(), (b"",), (b"hello",), (b"", b"hello", b""), (b"he", b"llo")])
def test_bodies_are_framed_as_uvicorn_frames_them(parts: tuple[bytes, ...]) -> None:
    for fields in ([], [(b"content-length", b"5")], [(b"content-length", b"0")]):
        uvicorns, first, _ = both(answering(200, fields, *parts), asking() + asking(b"HEAD"))
        assert first == uvicorns


async def _raises(scope: Any, receive: Any, send: Any) -> None:
    raise ValueError


async def _raises_late(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": START, "status": 200})
    raise ValueError


async def _forgets(scope: Any, receive: Any, send: Any) -> None:
    pass


async def _stops_short(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": START, "status": 200})


async def _returns(scope: Any, receive: Any, send: Any) -> Any:
    await answering(200, [], b"hello")(scope, receive, send)
    return 5


async def _starts_twice(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": START, "status": 200})
    await send({"type": START, "status": 200})


async def _begins_with_the_body(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": BODY, "body": b"x"})


async def _sends_more(scope: Any, receive: Any, send: Any) -> None:
    await answering(200, [], b"hello")(scope, receive, send)
    await send({"type": BODY, "body": b"x"})


async def _has_an_odd_status(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": START, "status": 1000})


async def _echoes(scope: Any, receive: Any, send: Any) -> None:
    """Says what it was asked, and what it received until the client is gone."""
    told = repr({name: scope[name] for name in sorted(scope) if name != "state"}).encode()
    while (message := await receive())["more_body"]:
        told += repr(message).encode()
    told += repr(message).encode()
    await send({"type": START, "status": 200})
    await send({"type": BODY, "body": told})
    assert (await receive())["type"] == "http.disconnect"


ODD_APPS = [
    *(_raises, _raises_late, _forgets, _stops_short, _returns, _starts_twice),
    *(_begins_with_the_body, _sends_more, _has_an_odd_status, _echoes),
]


@pytest.mark.parametrize("app", ODD_APPS)
def test_apps_that_break_the_rules_get_the_same_answers(app: Any) -> None:
    body = asking(b"POST", fields=b"Content-Length: 5\r\n") + b"hello"
    chunked = asking(b"POST", fields=b"Transfer-Encoding: chunked\r\n") + b"2\r\nhe\r\n0\r\n\r\n"
    expecting = asking(b"POST", fields=b"Expect: 100-continue\r\nContent-Length: 1\r\n") + b"x"
    closing = asking(fields=b"Connection: close\r\n")
    for requests in (body, chunked, expecting, closing, body + chunked, asking(version=b"1.0")):
        uvicorns, first, second = both(app, requests)
        assert first == uvicorns
        assert second == uvicorns


def test_default_fields_are_checked_and_acted_on() -> None:
    app = answering(200, [(b"content-length", b"0")])
    for field in (b"connection", b"close"), (b"x", b"a\nb"), (b"X-Served-By", b"me"):
        uvicorns, first, second = both(app, asking(), [DATE, field])
        assert first == uvicorns
        assert second == uvicorns


def test_what_was_checked_is_kept_within_bounds() -> None:
    from servd.worker import cycle

    fields = [(b"x", b"%d" % number) for number in range(2 * cycle._MOST_FIELDS)]
    app = answering(200, [*fields, (b"Connection", b"x"), (b"y", b"z" * 1000)])
    asyncio.run(_talk(ThriftyProtocol, app, asking(), [DATE]))
    assert 0 < len(cycle._fields) <= cycle._MOST_FIELDS
    assert not {name.lower() for name, _ in cycle._fields} & cycle._ACTED_ON
    assert all(len(line) <= cycle._LONGEST_FIELD for line in cycle._fields.values())


async def _two_wait() -> None:
    loop = asyncio.get_running_loop()
    made, _, _ = _connected(ThriftyProtocol, _forgets, [])
    made.on_message_begin()
    one = LeanCycle(made, False, True)
    tasks = [loop.create_task(one.receive()) for _ in range(2)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.sleep(0)
    assert not tasks[1].done()
    one.set()
    assert (await tasks[1])["type"] == "http.request"


def test_the_cancellation_of_one_that_waits_for_the_request_leaves_the_other() -> None:
    asyncio.run(_two_wait())


async def _cancelled_before_it_begins() -> None:
    made, state, _ = _connected(ThriftyProtocol, _echoes, [])
    made.data_received(asking())
    (task,) = state.tasks
    task.cancel()
    made.connection_lost(None)
    drain = Drain(state, WeakSet(), cast("Any", _NoRequests), 0.0, lambda _: None)
    drain.begin(3600.0)
    assert await drain.finish()


class _NoRequests:
    streams = ()
    given_up: ClassVar[set[Any]] = set()


def test_a_request_that_is_cancelled_before_it_begins_holds_up_no_drain() -> None:
    asyncio.run(_cancelled_before_it_begins())


async def _writes(app: Any, requests: bytes) -> list[bytes]:
    made, state, wire = _connected(ThriftyProtocol, app, [])
    made.data_received(requests)
    while state.tasks:
        await asyncio.wait(list(state.tasks), timeout=0.01)
    return wire.writes


@pytest.mark.parametrize(
    ("fields", "parts", "lengths"),
    [
        ([(b"content-length", b"2")], [b"ok"], [4 + 2]),
        ([], [b"ok"], [4 + len(b"2\r\nok\r\n0\r\n\r\n")]),
        ([(b"content-length", b"4")], [b"ok", b"ok"], [4 + 2, 2]),
        ([(b"content-length", b"0")], [], [4]),
        ([(b"content-length", b"20000")], [b"x" * 20000], [4, 20000]),
    ],
)
def test_a_head_travels_with_the_body_that_follows_it(
    fields: Any, parts: list[bytes], lengths: list[int]
) -> None:
    first, *rest = asyncio.run(_writes(answering(200, fields, *parts), asking()))
    body = first.partition(b"\r\n\r\n")[2]
    assert [4 + len(body), *map(len, rest)] == lengths


@pytest.mark.parametrize("request_of", [asking(b"HEAD"), asking()])
def test_a_head_without_a_body_is_sent(request_of: bytes) -> None:
    status = 200 if request_of.startswith(b"HEAD") else 204
    (head,) = asyncio.run(_writes(answering(status, [(b"x", b"y")], b"ignored"), request_of))
    assert head.endswith(b"x: y\r\n\r\n")


async def _streams(gap: asyncio.Event) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": START, "status": 200, "headers": [(b"content-length", b"2")]})
        await gap.wait()
        await send({"type": BODY, "body": b"ok"})

    connections = [_connected(ThriftyProtocol, app, []) for _ in range(2)]
    for made, _, _ in connections:
        made.data_received(asking())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for _, _, wire in connections:
        assert wire.written.endswith(b"content-length: 2\r\n\r\n"), "the body may take long"
    gap.set()
    for _, state, wire in connections:
        while state.tasks:
            await asyncio.wait(list(state.tasks), timeout=0.01)
        assert wire.writes[1:] == [b"ok"]


def test_a_head_does_not_wait_for_a_body_that_takes_time() -> None:
    asyncio.run(_streams(asyncio.Event()))


async def _lost() -> None:
    made, state, wire = _connected(ThriftyProtocol, _starts, [])
    made.data_received(asking())
    (task,) = state.tasks
    loop = asyncio.get_running_loop()
    loop.call_soon(made.connection_lost, ConnectionResetError())
    await asyncio.wait({task})
    assert wire.writes == []


async def _starts(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": START, "status": 200, "headers": []})
    await receive()
    await asyncio.sleep(0)


def test_a_head_for_a_client_that_has_left_is_dropped() -> None:
    asyncio.run(_lost())


def test_a_body_of_the_wrong_type_does_not_cost_the_head() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": START, "status": 200, "headers": [(b"content-length", b"4")]})
        with contextlib.suppress(TypeError):
            await send({"type": BODY, "body": "ab"})
        await send({"type": BODY, "body": b"cd"})

    written = b"".join(asyncio.run(_writes(app, asking())))
    assert written.startswith(b"HTTP/1.1 200 OK\r\n")
