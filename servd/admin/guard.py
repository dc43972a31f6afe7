"""Protects the admin API over TCP: callers need the token, and pages of other origins are refused.
A unix socket needs no guard: its file mode restricts who may connect.
"""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import json
import os
import socket
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from servd.admin.plain import answer_plainly
from servd.config.model import AdminConfig
from servd.core.address import Address
from servd.core.errors import StartError

_MAX_TOKEN_BYTES = 65536


class Token:
    """The token that callers must send: a value, or the content of a file, which may change."""

    def __init__(self, value: str, path: str) -> None:
        """Raises `StartError` if there is no token."""
        self._path = path
        self._value = value.encode()
        self._seen: tuple[int, ...] = ()
        if path:
            try:
                self._read()
            except OSError as error:
                raise StartError(f"admin.token_file: {path}: {error.strerror}") from None
        if not self._value:
            raise StartError(f"admin: {path or 'admin.token'} is empty")

    def _read(self) -> None:
        """Reads the file if it has changed. Raises OSError."""
        status = os.stat(self._path)
        seen = (status.st_ino, status.st_mtime_ns, status.st_size)
        if seen == self._seen:
            return
        with open(self._path, "rb") as file:
            value = file.read(_MAX_TOKEN_BYTES).strip()
        self._seen = seen
        if value:  # empty: the file is being written
            self._value = value

    def matches(self, shown: bytes) -> bool:
        """Whether `shown` is the token, compared in constant time."""
        if self._path:
            with contextlib.suppress(OSError):  # the last known token stays valid
                self._read()
        return hmac.compare_digest(shown, self._value)


class HostGuard:
    """An ASGI application that passes only requests for a host of ours to `app` at `address`: pages
    of others reach us by DNS rebinding.
    """

    def __init__(self, app: Any, address: Address) -> None:
        self.app = app
        self.host = socket.gethostname().lower().partition(".")[0]
        self.names = {"localhost", address.host.lower(), self.host}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers 401, 403 or 421, or calls the app."""
        refusal = self._refusal(scope["headers"])
        if refusal is None:
            await self.app(scope, receive, send)
            return
        status, detail = refusal
        problem = {"type": "about:blank", "title": status.phrase, "status": status.value}
        body = json.dumps({**problem, "detail": detail}).encode()
        more = [(b"www-authenticate", b"Bearer")] if status == HTTPStatus.UNAUTHORIZED else []
        await answer_plainly(send, status.value, "application/problem+json", body, *more)

    def _refusal(self, headers: list[tuple[bytes, bytes]]) -> tuple[HTTPStatus, str] | None:
        host = next((value for name, value in headers if name == b"host"), None)
        # health checks of HTTP/1.0 have none; browsers, which rebinding needs, always send one
        if host is not None and not self._is_ours(host.decode("latin-1")):
            return HTTPStatus.MISDIRECTED_REQUEST, "unknown Host header"
        return None

    def _is_ours(self, host: str) -> bool:
        """Whether `host` is our name or an IP address, which DNS rebinding cannot forge."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
            ours = name in self.names or name.partition(".")[0] == self.host
            return ours or bool(ipaddress.ip_address(name))
        except ValueError:
            return False


class Guard(HostGuard):
    """As `HostGuard`, of authorized requests."""

    def __init__(self, app: Any, address: Address, token: Token) -> None:
        super().__init__(app, address)
        self.token = token

    def _refusal(self, headers: list[tuple[bytes, bytes]]) -> tuple[HTTPStatus, str] | None:
        refused = super()._refusal(headers)
        if refused is not None:
            return refused
        found = {name: value.decode("latin-1") for name, value in headers}
        host = found.get(b"host", "")
        origin = found.get(b"origin")
        if origin is not None and origin.partition("://")[2] != host:
            return HTTPStatus.FORBIDDEN, "cross-origin requests are not allowed"
        if found.get(b"sec-fetch-site") in ("cross-site", "same-site"):
            return HTTPStatus.FORBIDDEN, "cross-site requests are not allowed"
        kind, _, shown = found.get(b"authorization", "").partition(" ")
        if kind.lower() != "bearer" or not self.token.matches(shown.strip().encode("latin-1")):
            return (
                HTTPStatus.UNAUTHORIZED,
                "send a valid token: Authorization: Bearer TOKEN",
            )
        return None


def guard_for(app: Any, config: AdminConfig, address: Address) -> Any:
    """Returns `app` with the guard that `address` needs. Raises `StartError`."""
    if address.kind == "unix":
        return app
    return Guard(app, address, Token(config.token, config.token_file))
