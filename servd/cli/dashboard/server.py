"""The server of `servd dashboard`: the page, and a proxy to the admin API for its session. Its
address has a one-time token after `#`, which servers and logs never see, exchanged for a session
token in the tab's storage, which belongs to this port. (A cookie would be sent to every port.)
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import secrets
import socket
from collections.abc import AsyncIterator
from types import FrameType

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from servd.admin.routes_page import document, headers
from servd.control.client import AdminClient
from servd.core.errors import ServdError

_TIMEOUT = httpx.Timeout(None, connect=5.0)
_REQUEST_HEADERS = ("content-type", "if-match", "last-event-id", "accept")
_RESPONSE_HEADERS = ("content-type", "etag", "cache-control")


class DashboardServer:
    """Serves one daemon's page. Raises `ServdError` if the port is taken."""

    def __init__(self, client: AdminClient, port: int) -> None:
        self.admin = client
        self.base = client.endpoint if "://" in client.endpoint else "http://servd"
        self.one_time: str | None = secrets.token_urlsafe(24)
        self.session = secrets.token_urlsafe(24)
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind(("127.0.0.1", port))
            self._socket.listen(128)  # early clients wait until we serve
        except OSError as error:
            raise ServdError(f"cannot listen on 127.0.0.1:{port}: {error.strerror}") from None
        self.host = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.url = f"http://{self.host}/#{self.one_time}"
        self._ending = asyncio.Event()
        self._http = self._client()

    def run(self) -> None:
        """Serves until SIGINT or SIGTERM."""
        app = Starlette(
            routes=[
                Route("/", self._page),
                Route("/session", self._exchange, methods=["POST"]),
                Route("/{path:path}", self._proxy, methods=["GET", "POST"]),
            ]
        )
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=1,
        )

        async def serve() -> None:
            async with self._http:
                await _Server(config, self._ending).serve(sockets=[self._socket])

        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(serve())

    def _client(self) -> httpx.AsyncClient:
        """Returns the daemon's client, without a read timeout: an action may take any time."""
        endpoint, auth = self.admin.endpoint, self.admin.headers
        if "://" in endpoint:
            return httpx.AsyncClient(headers=auth, timeout=_TIMEOUT)
        transport = httpx.AsyncHTTPTransport(uds=endpoint)
        return httpx.AsyncClient(transport=transport, timeout=_TIMEOUT)

    async def _page(self, request: Request) -> Response:
        """Returns the page. It contains only files of servd, so it needs no token."""
        if request.headers.get("host") != self.host:
            return _problem(421, "unknown Host header")
        return Response(document()[0], headers=headers())

    async def _exchange(self, request: Request) -> Response:
        """Exchanges the one-time token for the session token, once."""
        if refusal := self._foreign(request):
            return refusal
        given, wanted = await request.body(), self.one_time
        if wanted is None or not hmac.compare_digest(given, wanted.encode()):
            return _problem(401, "this address was opened before: run servd dashboard again")
        self.one_time = None
        return JSONResponse({"token": self.session}, headers={"cache-control": "no-store"})

    async def _proxy(self, request: Request) -> Response:
        if refusal := self._foreign(request):
            return refusal
        shown = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(shown.encode(), self.session.encode()):
            return _problem(401, "run servd dashboard and open the address that it prints")
        passed = {k: v for k, v in request.headers.items() if k in _REQUEST_HEADERS}
        raw = request.scope["raw_path"].decode("ascii", "replace")
        query = f"?{request.url.query}" if request.url.query else ""
        body = await request.body()
        url = self.base + raw + query
        try:
            sent = self._http.build_request(request.method, url, headers=passed, content=body)
            answer = await self._http.send(sent, stream=True)
        except httpx.InvalidURL:
            return _problem(400, "this is no route")
        except httpx.HTTPError:
            return _problem(502, "servd does not answer")
        found = {k: v for k, v in answer.headers.items() if k in _RESPONSE_HEADERS}
        return StreamingResponse(_body(answer, self._ending), answer.status_code, headers=found)

    def _foreign(self, request: Request) -> Response | None:
        """Returns the refusal of a cross-origin request, or of an unknown Host."""
        if request.headers.get("host") != self.host:
            return _problem(421, "unknown Host header")
        if request.headers.get("origin", f"http://{self.host}") != f"http://{self.host}":
            return _problem(403, "cross-origin requests are not allowed")
        return None


async def _body(answer: httpx.Response, ending: asyncio.Event) -> AsyncIterator[bytes]:
    """Yields the daemon's answer until it ends, or the dashboard does."""
    chunks = answer.aiter_raw()
    over = asyncio.ensure_future(ending.wait())
    try:
        while not over.done():
            coming = asyncio.ensure_future(_next(chunks))
            await asyncio.wait({coming, over}, return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                coming.cancel()
                return
            if not (chunk := coming.result()):
                return
            yield chunk
    finally:
        over.cancel()
        await answer.aclose()


async def _next(chunks: AsyncIterator[bytes]) -> bytes:
    """Returns the next part, or b"" at the end or when the daemon has gone."""
    try:
        return await anext(chunks, b"")
    except httpx.HTTPError:
        return b""


class _Server(uvicorn.Server):
    """Sets `ending` when its shutdown begins, which ends the streams of pages."""

    def __init__(self, config: uvicorn.Config, ending: asyncio.Event) -> None:
        super().__init__(config)
        self.ending = ending

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends the streams, then the server."""
        self.ending.set()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Ends the server; Uvicorn would raise the signal again."""
        self.should_exit = True


def _problem(status: int, detail: str) -> Response:
    content = json.dumps({"title": detail, "status": status, "detail": detail})
    return Response(content, status, media_type="application/problem+json")
