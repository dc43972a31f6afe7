"""The request that is being answered: its id, and what is handed on to dependencies."""

from __future__ import annotations

import itertools
import os
from contextvars import ContextVar
from typing import Any

HANDED_ON = frozenset({b"traceparent", b"tracestate", b"baggage"})
"""Headers of W3C Trace Context and Baggage that calls to dependencies carry on."""

_KEY = "servd.request_id"
_PREFIX = os.urandom(6).hex()
_COUNT = itertools.count(1)

handed_on: ContextVar[tuple[tuple[bytes, bytes], ...]] = ContextVar("servd_handed_on", default=())
"""Headers for calls that the current request makes."""


def request_id_of(scope: Any) -> str:
    """The X-Request-ID that the client sent, or one made for this request; kept in the scope."""
    known = scope.get(_KEY)
    if known is None:
        for name, value in scope["headers"]:
            if name == b"x-request-id" and len(value) <= 128:
                known = value.decode("latin-1")
                break
        else:
            known = f"{_PREFIX}{next(_COUNT):010x}"
        scope[_KEY] = known
    return str(known)


class RequestContext:
    """Lets `servd.depends` carry the request id and trace headers on."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Runs the app with `handed_on` set."""
        if scope["type"] in ("http", "websocket"):
            request_id = request_id_of(scope).encode("latin-1")
            traced = [pair for pair in scope["headers"] if pair[0] in HANDED_ON]
            handed_on.set(((b"x-request-id", request_id), *traced))
        await self.app(scope, receive, send)
