"""An app as a replica runs it: inside servd's middleware, with the lifespan and the state that
Uvicorn would give it. Ray is not needed here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from typing import TYPE_CHECKING, Any, cast

from servd.core.quick_dataclass import dataclass
from servd.engines.ray import exchange
from servd.engines.ray.replica_spec import ReplicaSpec
from servd.wire.accept_board import Board, Seat
from servd.wire.request_line import REQUEST_MARK, events_of
from servd.wire.shm_counters import Counters
from servd.wire.worker_spec import AppSpec, BentoSpec
from servd.worker.application import as_asgi3
from servd.worker.asgi.access_log import AccessLog
from servd.worker.asgi.request import REQUEST_ID
from servd.worker.asgi.requests import Requests
from servd.worker.events import EventWriter
from servd.worker.load_app import load
from servd.worker.reporter import Reporter
from servd.worker.threads import size_pools

if TYPE_CHECKING:
    from servd.worker.channel import Channel

logger = logging.getLogger("servd.worker")


_START_SECONDS = 1.0
"""Most time between two probes of a replica that starts."""


class UnhealthyError(Exception):
    """A health probe has failed."""


def load_replica_app(spec: ReplicaSpec, worker: int, bento: BentoSpec | None = None) -> ReplicaApp:
    """Loads the app of a replica. Raises `AppLoadError`."""
    app_spec = spec.app_spec(spec.folder(), bento)
    return ReplicaApp(as_asgi3(load(app_spec, worker), app_spec), app_spec, spec)


class ReplicaApp:
    """The app with what servd does around every request."""

    def __init__(self, app: Any, app_spec: AppSpec, spec: ReplicaSpec) -> None:
        self.app, self.spec = app, spec
        reporter = ReplicaReporter.of(spec.service)
        self.requests = Requests(app, app_spec, reporter, _access_log(spec, reporter), None)
        self.state: dict[str, Any] = {}
        self._patience = spec.start_failures

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serves what Ray's proxy has read. Ray itself adds the request id to every answer."""
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        elif scope["type"] == "http":
            await self.serve(scope, receive, _Proxied(send).send)
        else:
            await self.serve(scope, receive, send)

    async def serve(self, scope: Any, receive: Any, send: Any) -> None:
        """Serves a request, with the state of the lifespan: Ray hands it to nobody."""
        scope = {**scope, "state": {**self.state, **scope.get("state", {})}}
        await self.requests(_rooted(scope, self.spec.root_path), receive, send)

    async def check_health(self) -> None:
        """Asks the app as servd's daemon would. Raises `UnhealthyError`. Ray asks a replica before
        it serves, and gives up after three: the first time, failures are ignored as long as the
        configuration says.
        """
        if not self.spec.health_path:
            return
        path = self.spec.root_path + self.spec.health_path
        while self._patience:
            self._patience -= 1
            try:
                await self._probe(path)
            except UnhealthyError:
                await asyncio.sleep(min(self.spec.health_interval, _START_SECONDS))
            else:
                self._patience = 0
                return
        await self._probe(path)

    async def _probe(self, path: str) -> None:
        """Probes the app alone. A loop that was too busy to ask does not count against the app."""
        task = asyncio.create_task(exchange.probe(self._stated, path, self.spec.health_host))
        try:
            await asyncio.wait({task}, timeout=self.spec.health_timeout)
            await asyncio.sleep(0)
            if not task.done():
                limit = f"{self.spec.health_timeout:g} s"
                raise UnhealthyError(f"{path} did not answer within {limit}")
            if not 200 <= (status := task.result()) < 400:
                raise UnhealthyError(f"{path} answered {status}")
        finally:
            task.cancel()

    async def _stated(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app({**scope, "state": {**self.state}}, receive, send)

    async def _lifespan(self, scope: Any, receive: Any, send: Any) -> None:
        """Runs the lifespan as `uvicorn.lifespan` says. Ray insists on one, which apps need not
        have: then it is answered for them.
        """
        loop = asyncio.get_running_loop()
        self.requests.loop = loop
        size_pools(loop, self.spec.threads)
        self.state = scope.setdefault("state", {})
        client = _Lifespan(receive, send)
        if self.spec.lifespan != "off":
            try:
                await self.app(scope, client.receive, client.send)
            except BaseException:
                if client.answered or self.spec.lifespan == "on":
                    raise
        if not client.answered:
            await client.answer()


@dataclass(slots=True)
class _Lifespan:
    """Both ends of a lifespan, and what has passed."""

    _receive: Any
    _send: Any
    answered: bool = False
    received: int = 0

    async def receive(self) -> Any:
        """Receives startup, then shutdown."""
        message = await self._receive()
        self.received += 1
        return message

    async def send(self, message: Any) -> None:
        """Hands an answer on. Raises ValueError for what is none: an app that knows no lifespan may
        answer it like a request.
        """
        if not message["type"].startswith("lifespan."):
            raise ValueError(f"{message['type']} is no answer to a lifespan")
        self.answered = True
        await self._send(message)

    async def answer(self) -> None:
        """Answers everything for an app without a lifespan."""
        if not self.received:
            await self.receive()
        await self._send({"type": "lifespan.startup.complete"})
        await self._receive()
        await self._send({"type": "lifespan.shutdown.complete"})


class _Proxied:
    """The way back to Ray's proxy, without the request id."""

    def __init__(self, send: Any) -> None:
        self._send = send

    async def send(self, message: Any) -> None:
        """Hands a message on."""
        if message["type"] == "http.response.start":
            headers = message.get("headers", ())
            kept = [each for each in headers if bytes(each[0]).lower() != REQUEST_ID]
            message = {**message, "headers": kept}
        await self._send(message)


def _rooted(scope: dict[str, Any], root_path: str) -> dict[str, Any]:
    """Returns the scope with `root_path` after the prefix of the route, as Uvicorn has it."""
    if not root_path:
        return scope
    prefix = scope.get("root_path", "")
    rest = scope["path"].removeprefix(prefix)
    raw = scope.get("raw_path") or scope["path"].encode()
    raw_rest = raw.removeprefix(prefix.encode())
    return {
        **scope,
        "root_path": prefix + root_path,
        "path": prefix + root_path + rest,
        "raw_path": (prefix + root_path).encode() + raw_rest,
    }


class ReplicaReporter(Reporter):
    """What servd's middleware reports, where there is no daemon."""

    @classmethod
    def of(cls, service: str) -> ReplicaReporter:
        """Returns the reporter of a replica, which has no siblings on its socket."""
        board = Board("servd-replica")
        seat = Seat(os.dup(board.descriptor), 0)
        board.close()
        return cls(StdoutEvents(service), Counters(), cast("Channel", None), seat)

    def recycle(self, reason: str, error: str = "") -> None:
        """Ray replaces no replica on demand: says what would be replaced."""
        logger.warning("this replica should be replaced: %s", error or reason)


class StdoutEvents(EventWriter):
    """Writes events as lines of JSON to the output of the replica."""

    def __init__(self, service: str) -> None:
        super().__init__(-1, lambda lines: None)
        names = f', "service": "{service}", "pid": {os.getpid()}}}'
        self._end = names.encode()

    def _write(self, content: bytes) -> None:
        lines = content.removesuffix(b"\n")
        assert lines.startswith(REQUEST_MARK)
        with contextlib.suppress(OSError, ValueError):
            print(events_of(lines, self._end).decode(), flush=True, file=sys.stdout)


def _access_log(spec: ReplicaSpec, reporter: Reporter) -> AccessLog | None:
    return AccessLog(reporter.writer, (), 1.0) if spec.access_log else None
