"""Headers of a reverse proxy, accepted from trusted peers only."""

from __future__ import annotations

from typing import Any

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

UNIX = "unix"


def proxy_headers(app: Any, trusted: tuple[str, ...]) -> Any:
    """Wraps `app` in Uvicorn's middleware for X-Forwarded-For and X-Forwarded-Proto. "unix" among
    `trusted` trusts every peer on a unix socket, which has no address to check.
    """
    hosts = [host for host in trusted if host != UNIX]
    checked = ProxyHeadersMiddleware(app, "*" if "*" in hosts else hosts)
    if UNIX not in trusted:
        return checked
    believed = ProxyHeadersMiddleware(app, "*")

    async def choose(scope: Any, receive: Any, send: Any) -> None:
        on_unix = scope["type"] != "lifespan" and not scope.get("client")
        await (believed if on_unix else checked)(scope, receive, send)

    return choose
