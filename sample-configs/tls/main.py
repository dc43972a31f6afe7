"""Says what the application learns about the TLS connection of a request."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request

app = FastAPI(title="tls")


@app.get("/")
async def facts(request: Request) -> dict[str, Any]:
    scope = request.scope
    return {
        "scheme": request.url.scheme,
        "http_version": scope["http_version"],
        "server": scope["server"],
        "client": scope["client"],
        # The ASGI TLS extension: null where the server does not implement it. That the
        # request is here means that the client had a certificate: others fail the handshake.
        "tls": scope.get("extensions", {}).get("tls"),
    }
