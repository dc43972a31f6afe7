"""What `servd dashboard` listens with: the page, and a way through to the admin API for whoever
opened it.

The address that is printed holds a one-time token behind `#`, where no server and no log sees it.
The page exchanges it for a session's token and keeps that in the browser tab's own storage, which
belongs to this very port. (A cookie would go to every port of the machine.)
"""

from __future__ import annotations

import asyncio
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

_FOR_EVER = httpx.Timeout(None, connect=5.0)
_PASSED_ON = ("content-type", "if-match", "last-event-id", "accept")
_PASSED_BACK = ("content-type", "etag", "cache-control")


class DashboardServer:
    """Serves one daemon's page. Raises `ServdError` where the port is taken."""

    def __init__(self, client: AdminClient, port: int) -> None:
        self.admin = client
        self.base = client.endpoint if "://" in client.endpoint else "http://servd"
        self.one_time: str | None = secrets.token_urlsafe(24)
        self.session = secrets.token_urlsafe(24)
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind(("127.0.0.1", port))
            self._socket.listen(128)  # whoever comes before we serve, waits
        except OSError as error:
            raise ServdError(f"cannot listen on 127.0.0.1:{port}: {error.strerror}") from None
        self.host = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.url = f"http://{self.host}/#{self.one_time}"

    def run(self) -> None:
        """Serves until SIGINT or SIGTERM."""
        app = Starlette(
            routes=[
                Route("/", self._page),
                Route("/session", self._exchange, methods=["POST"]),
                Route("/{path:path}", self._through, methods=["GET", "POST"]),
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
        server = _Server(config)
        self._ending = server.ending
        try:
            asyncio.run(self._serve(server))
        except KeyboardInterrupt:
            return

    async def _serve(self, server: uvicorn.Server) -> None:
        async with self._client() as self._http:
            await server.serve(sockets=[self._socket])

    def _client(self) -> httpx.AsyncClient:
        """A way to the daemon: without a limit of time, since acts last as long as they do."""
        endpoint, shown = self.admin.endpoint, self.admin.headers
        if "://" in endpoint:
            return httpx.AsyncClient(headers=shown, timeout=_FOR_EVER)
        transport = httpx.AsyncHTTPTransport(uds=endpoint)
        return httpx.AsyncClient(transport=transport, timeout=_FOR_EVER)

    async def _page(self, request: Request) -> Response:
        """The page holds nothing that is not in servd's own files: anybody may see it."""
        if request.headers.get("host") != self.host:
            return _problem(421, "this Host is not served here")
        return Response(document()[0], headers=headers())

    async def _exchange(self, request: Request) -> Response:
        """The one-time token for the session's, once."""
        if refusal := self._foreign(request):
            return refusal
        given, wanted = await request.body(), self.one_time
        if wanted is None or not hmac.compare_digest(given, wanted.encode()):
            return _problem(401, "this address was opened before: run servd dashboard again")
        self.one_time = None
        return JSONResponse({"token": self.session}, headers={"cache-control": "no-store"})

    async def _through(self, request: Request) -> Response:
        """Whatever else, to the daemon and back."""
        if refusal := self._foreign(request):
            return refusal
        shown = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(shown.encode(), self.session.encode()):
            return _problem(401, "run servd dashboard and open the address that it prints")
        passed = {k: v for k, v in request.headers.items() if k in _PASSED_ON}
        raw = request.scope["raw_path"].decode("ascii", "replace")
        query = f"?{request.url.query}" if request.url.query else ""
        body = await request.body()
        try:
            sent = self._http.build_request(
                request.method, self.base + raw + query, headers=passed, content=body
            )
            answer = await self._http.send(sent, stream=True)
        except httpx.InvalidURL:
            return _problem(400, "this is no route")
        except httpx.HTTPError:
            return _problem(502, "servd does not answer")
        found = {k: v for k, v in answer.headers.items() if k in _PASSED_BACK}
        parts = _body(answer, self._ending)
        return StreamingResponse(parts, answer.status_code, headers=found)

    def _foreign(self, request: Request) -> Response | None:
        """The refusal of what another site, or another name for this machine, asks for."""
        if request.headers.get("host") != self.host:
            return _problem(421, "this Host is not served here")
        if request.headers.get("origin", f"http://{self.host}") != f"http://{self.host}":
            return _problem(403, "requests of another origin are refused")
        return None


async def _body(answer: httpx.Response, ending: asyncio.Event) -> AsyncIterator[bytes]:
    """The answer as it comes, until the daemon ends it, or we end."""
    chunks = answer.aiter_raw()
    over = asyncio.ensure_future(ending.wait())
    try:
        while not over.done():
            coming = asyncio.ensure_future(_next(chunks))
            await asyncio.wait({coming, over}, return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                coming.cancel()
                return
            chunk = coming.result()
            if not chunk:
                return
            yield chunk
    finally:
        over.cancel()
        await answer.aclose()


async def _next(chunks: AsyncIterator[bytes]) -> bytes:
    """The next part; nothing at the end, or where the daemon has gone, and its answer with it."""
    try:
        return await anext(chunks, b"")
    except httpx.HTTPError:
        return b""


class _Server(uvicorn.Server):
    """Uvicorn that says when it begins to end: pages that follow something are let go of."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ending = asyncio.Event()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends."""
        self.ending.set()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The signal ends us properly, and is not raised once more."""
        self.should_exit = True


def _problem(status: int, detail: str) -> Response:
    content = json.dumps({"title": detail, "status": status, "detail": detail})
    return Response(content, status, media_type="application/problem+json")
