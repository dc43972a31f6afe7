"""What a replica does around an app, without Ray and without a daemon."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from servd.engines.ray import exchange, replica_app
from servd.engines.ray.exchange import HandleCall, Head
from servd.engines.ray.replica_app import ReplicaApp, UnhealthyError, load_replica_app
from servd.engines.ray.replica_spec import BentoArguments, ReplicaSpec

App = Callable[[Any, Any, Any], Awaitable[None]]
GET = HandleCall("GET", b"/a%20b?q=1", [(b"host", b"inner")], b"")


def replica(app: App, **keys: Any) -> ReplicaApp:
    spec = ReplicaSpec("web", "main:app", access_log=False, **keys)
    return ReplicaApp(app, spec.app_spec("/"), spec)


async def hello(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http", "this app has no lifespan"
    message = await receive()
    shown = f"{scope['method']} {scope['path']} {scope['query_string'].decode()}"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"b")]})
    await send({"type": "http.response.body", "body": shown.encode() + message["body"]})


def asked(app: App, call: HandleCall = GET, **keys: Any) -> exchange.WholeAnswer:
    return asyncio.run(exchange.answer(replica(app, **keys).serve, call))


def test_worker_code_is_imported_without_the_daemon_and_without_ray() -> None:
    code = (
        "import sys, servd.engines.ray.build; print([m for m in sys.modules"
        " if m.partition('.')[0] in ('ray', 'circus', 'pydantic')"
        " or m.startswith(('servd.daemon', 'servd.supervisor', 'servd.config', 'servd.cli.'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_arguments_are_json_and_leave_out_defaults() -> None:
    spec = ReplicaSpec(
        "gw", "service:Gateway", request=1.5, depends={"a": {"url": "http://a", "engine": "ray"}},
        bento=BentoArguments("Part", {"Other": "gw.other"}),
    )  # fmt: skip
    args = json.loads(json.dumps(spec.to_args()))
    assert args == {
        "service": "gw", "app": "service:Gateway", "request": 1.5,
        "depends": {"a": {"url": "http://a", "engine": "ray"}},
        "bento": {"part": "Part", "reached": {"Other": "gw.other"}},
    }  # fmt: skip
    assert ReplicaSpec.from_args(args) == spec


def test_a_call_is_answered_at_once_or_in_pieces() -> None:
    answer = asked(hello, GET._replace(method="POST", body=b"!"))
    assert answer == (200, [(b"x-a", b"b")], b"POST /a b q=1!")

    async def pieces(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        for number in range(3):
            await send({"type": "http.response.body", "body": b"%d" % number, "more_body": True})
        await send({"type": "http.response.body"})

    async def all_of_it() -> list[Any]:
        return [part async for part in exchange.stream(pieces, GET)]

    assert asyncio.run(all_of_it()) == [Head(200, []), b"0", b"1", b"2"]


def test_an_app_that_fails_answers_500_or_breaks_its_answer() -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("no")

    async def breaks(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        raise ValueError("broken")

    async def says_nothing(scope: Any, receive: Any, send: Any) -> None:
        return

    assert asked(fails)[0] == asked(says_nothing)[0] == 500
    with pytest.raises(ValueError, match="broken"):
        asked(breaks)


def test_a_caller_that_leaves_ends_the_app_and_an_answered_one_works_on() -> None:
    ended: list[str] = []
    done = asyncio.Event()

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    async def works_on(scope: Any, receive: Any, send: Any) -> None:
        await hello(scope, receive, send)
        assert (await receive())["type"] == "http.disconnect"
        done.set()

    async def both() -> None:
        stream = exchange.stream(endless, GET)
        assert await anext(stream) == Head(200, [])
        await stream.aclose()
        assert ended == ["cancelled"]
        assert (await exchange.answer(works_on, GET)).status == 200
        await done.wait()

    asyncio.run(both())


def test_deadlines_limits_and_bodies_are_those_of_servd() -> None:
    async def never(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    late = asked(never, request=0.05)
    assert (late.status, json.loads(late.body)["title"]) == (504, "Gateway Timeout")

    async def two_at_once() -> list[int]:
        app = replica(never, concurrency=1, request=0.2)
        answers = await asyncio.gather(*(exchange.answer(app.serve, GET) for _ in range(2)))
        assert {name for name, _ in answers[1].headers} >= {b"retry-after"}
        return [each.status for each in answers]

    assert asyncio.run(two_at_once()) == [504, 503]
    large = GET._replace(headers=[(b"content-length", b"9")], body=b"123456789")
    assert asked(hello, large, body=4).status == 413


async def lived(app: ReplicaApp) -> tuple[list[str], dict[str, Any]]:
    """Runs a lifespan as Ray has Uvicorn do it; gives the answers, and the state."""
    told: list[str] = []
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    state: dict[str, Any] = {}

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        told.append(message["type"].rpartition(".")[2])

    await app({"type": "lifespan", "state": state}, receive, send)
    return told, state


async def with_state(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        scope["state"]["model"] = "loaded"
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = scope["state"]["model"].encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def test_the_state_of_the_lifespan_reaches_requests_and_probes() -> None:
    async def run() -> None:
        app = replica(with_state, health_path="/healthz")
        told, state = await lived(app)
        assert (told, state) == (["complete", "complete"], {"model": "loaded"})
        assert (await exchange.answer(app.serve, GET)).body == b"loaded"
        await app.check_health()

    asyncio.run(run())


@pytest.mark.parametrize("lifespan", ["auto", "on", "off"])
def test_an_app_needs_no_lifespan_unless_it_is_asked_for(lifespan: str) -> None:
    app = replica(hello, lifespan=lifespan)
    if lifespan == "on":
        with pytest.raises(AssertionError, match="no lifespan"):
            asyncio.run(lived(app))
    else:
        assert asyncio.run(lived(app))[0] == ["complete", "complete"]


def test_an_app_that_answers_the_lifespan_like_a_request_has_none() -> None:
    async def raw(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    assert asyncio.run(lived(replica(raw)))[0] == ["complete", "complete"]


def test_a_lifespan_that_fails_fails() -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    assert asyncio.run(lived(replica(fails)))[0] == ["failed"]


def test_a_replica_that_starts_may_become_healthy_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_app, "_START_SECONDS", 0.01)
    answers = [503, 503, 200, 503]

    async def late(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": answers.pop(0)})
        await send({"type": "http.response.body"})

    async def run() -> None:
        app = replica(late, health_path="/h", start_failures=2)
        await app.check_health()
        with pytest.raises(UnhealthyError):
            await app.check_health()

    asyncio.run(run())
    assert answers == []


def test_health_asks_the_app_and_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    async def sick(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 503})
        await send({"type": "http.response.body"})

    async def never(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(replica_app, "_START_SECONDS", 0.01)
    asyncio.run(replica(sick).check_health())  # it has no path
    with pytest.raises(UnhealthyError, match=r"^/h answered 503$"):
        asyncio.run(replica(sick, health_path="/h").check_health())
    with pytest.raises(UnhealthyError, match=r"^/r/h did not answer within 0.05 s$"):
        asyncio.run(
            replica(never, health_path="/h", root_path="/r", health_timeout=0.05).check_health()
        )


def test_root_path_follows_the_prefix_of_the_route_and_the_request_id_is_left_to_ray() -> None:
    async def where(scope: Any, receive: Any, send: Any) -> None:
        body = f"{scope['root_path']} {scope['path']} {scope['raw_path'].decode()}".encode()
        headers = [(b"X-Request-ID", b"1"), (b"x-b", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    sent: list[Any] = []

    async def run() -> None:
        async def receive() -> Any:
            return {"type": "http.request", "body": b""}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = GET.scope() | {"root_path": "/web", "path": "/web/x y", "raw_path": b"/web/x%20y"}
        await replica(where, root_path="/api")(scope, receive, send)

    asyncio.run(run())
    assert sent[0]["headers"] == [(b"x-b", b"2")]
    assert sent[1]["body"] == b"/web/api /web/api/x y /web/api/x%20y"


def test_requests_are_logged_as_events_with_the_names_of_servd(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "some_app.py").write_text(
        "def app(environ, start):\n"
        "    start('200 OK', [('Content-Type', 'text/plain')])\n"
        "    return [environ['QUERY_STRING'].encode()]\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec = ReplicaSpec("web", "some_app:app", directory=str(tmp_path))

    async def run() -> exchange.WholeAnswer:
        return await exchange.answer(load_replica_app(spec, 0).serve, GET)

    assert asyncio.run(run()).body == b"q=1"
    event = json.loads(capsys.readouterr().out)
    shown = {key: event[key] for key in ("event", "service", "url.path", "http.request.method")}
    assert shown == {
        "event": "request", "service": "web", "url.path": "/a b", "http.request.method": "GET",
    }  # fmt: skip
    assert event["http.response.status_code"] == 200
