"""Runs a WSGI app (PEP 3333) as ASGI 3, each request in a thread of the pool.

servd's own: a2wsgi (1.10) never closes the answer of a client that has gone, which takes its thread
for ever, sends headers before there is any output, makes `X_Under` and `X-Under` one, and decodes
the bytes of a path.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import io
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote_to_bytes
from wsgiref.util import FileWrapper

from servd._version import __version__

_DEFAULT_PORTS = {"http": "80", "https": "443"}
_CGI_NAMES = {b"content-length": "CONTENT_LENGTH", b"content-type": "CONTENT_TYPE"}


class ClientGoneError(Exception):
    """The client has gone, or servd has responded: nothing reads the response of the app."""


class WSGIAdapter:
    """One WSGI app. `is_over` tells whether the running request needs no more of its answer."""

    def __init__(self, app: Any, pool: ThreadPoolExecutor, is_over: Callable[[], bool]) -> None:
        self._app = app
        self._pool = pool
        self._is_over = is_over

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Runs the app for one request, or answers for it what WSGI does not know."""
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        else:
            loop = asyncio.get_running_loop()
            answer = _Answer(loop, send, self._is_over)
            body = io.BufferedReader(_Body(loop, receive))
            run = functools.partial(self._run, environ_of(scope, body), answer)
            await loop.run_in_executor(self._pool, contextvars.copy_context().run, run)

    def _run(self, environ: dict[str, Any], answer: _Answer) -> None:
        """Runs in the thread. What the app raises is for the server, which answers with 500 or cuts
        the answer that has begun.
        """
        try:
            chunks = self._app(environ, answer.start_response)
            try:
                answer.send_all(chunks)
            finally:
                if close := getattr(chunks, "close", None):
                    close()
        except ClientGoneError:
            return


class _Answer:
    """The answer of an app, from its thread: the head is sent with the first output."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, send: Any, over: Callable[[], bool]
    ) -> None:
        self._loop = loop
        self._send = send
        self._over = over
        self._head: Any = None
        self._begun = False

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        """PEP 3333's: a second call needs `exc_info`, and raises it once there was output."""
        if exc_info is not None:
            try:
                if self._begun:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # it refers to this frame
        elif self._head is not None:
            raise AssertionError("start_response was called twice without exc_info")
        self._head = {
            "type": "http.response.start",
            "status": int(status[:3]),
            "headers": [
                (name.strip().lower().encode("latin-1"), value.strip().encode("latin-1"))
                for name, value in headers
            ],
        }
        return self._write

    def _write(self, chunk: bytes) -> None:
        if chunk:
            self._deliver(chunk, more=True)

    def send_all(self, chunks: Iterable[bytes]) -> None:
        """Sends each chunk before the next is asked for; a single one with the end."""
        if isinstance(chunks, (list, tuple)) and len(chunks) == 1:
            self._deliver(chunks[0], more=False)
            return
        for chunk in chunks:
            self._write(chunk)
        self._deliver(b"", more=False)

    def _deliver(self, chunk: bytes, *, more: bool) -> None:
        """Raises `ClientGoneError` if nothing reads it."""
        messages = [{"type": "http.response.body", "body": chunk, "more_body": more}]
        if not self._begun:
            if self._head is None:
                raise AssertionError("the app did not call start_response")
            self._begun = True
            messages.insert(0, self._head)
        if self._over():
            raise ClientGoneError
        asyncio.run_coroutine_threadsafe(self._send_each(messages), self._loop).result()

    async def _send_each(self, messages: list[Any]) -> None:
        for message in messages:
            await self._send(message)


class _Body(io.RawIOBase):
    """The body of a request (`wsgi.input`), from the app's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, receive: Any) -> None:
        self._loop = loop
        self._receive = receive
        self._rest = b""
        self._ended = False

    def readable(self) -> bool:
        """Whether it can be read: yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Reads what there is, or waits for more. Raises ConnectionResetError without a client."""
        while not self._rest and not self._ended:
            message = asyncio.run_coroutine_threadsafe(self._receive(), self._loop).result()
            if message["type"] == "http.disconnect":
                raise ConnectionResetError("the client disconnected")
            self._rest = message.get("body", b"")
            self._ended = not message.get("more_body", False)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def environ_of(scope: Any, body: Any) -> dict[str, Any]:
    """Returns PEP 3333's environ. A header with an underscore is left out, as by gunicorn: it would
    pass for the one with a dash. Of a unix socket, names come from the Host header, as there.
    """
    root = scope.get("root_path", "")
    path = unquote_to_bytes(scope["raw_path"]).decode("latin-1")
    script = root.encode().decode("latin-1")
    environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": script,
        "PATH_INFO": path.removeprefix(script),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "RAW_URI": _raw_uri(scope),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "SERVER_SOFTWARE": f"servd/{__version__}",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.get("scheme", "http"),
        "wsgi.input": body,
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.file_wrapper": FileWrapper,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "asgi.scope": scope,
    }
    _add_headers(environ, scope["headers"])
    _add_addresses(environ, scope)
    return environ


def _raw_uri(scope: Any) -> str:
    query = scope["query_string"].decode("latin-1")
    path = scope["raw_path"].decode("latin-1")
    return f"{path}?{query}" if query else str(path)


def _add_headers(environ: dict[str, Any], headers: Iterable[tuple[bytes, bytes]]) -> None:
    for name, value in headers:
        if b"_" in name:
            continue
        key = _CGI_NAMES.get(name) or f"HTTP_{name.decode('latin-1').upper().replace('-', '_')}"
        text = value.decode("latin-1")
        if key in environ:
            text = f"{environ[key]}{'; ' if name == b'cookie' else ','}{text}"
        environ[key] = text


def _add_addresses(environ: dict[str, Any], scope: Any) -> None:
    host, port = scope.get("server") or ("", None)
    default = _DEFAULT_PORTS.get(environ["wsgi.url_scheme"], "")
    if port is None:  # a unix socket
        name, _, number = environ.get("HTTP_HOST", "localhost").rpartition(":")
        host, port = (name, number) if number.isdigit() else (environ.get("HTTP_HOST"), default)
    environ["SERVER_NAME"], environ["SERVER_PORT"] = host or "localhost", str(port)
    client = scope.get("client")
    environ["REMOTE_ADDR"] = client[0] if client else ""
    if client:
        environ["REMOTE_PORT"] = str(client[1])
