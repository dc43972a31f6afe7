"""Error answers of servd itself: problem details in JSON (RFC 9457)."""

from __future__ import annotations

import http
import json

from servd.worker.asgi.request import REQUEST_ID, Message, Request


def problem(
    request: Request, status: int, detail: str, *headers: tuple[bytes, bytes]
) -> tuple[Message, Message]:
    """Returns the ASGI messages of an answer to `request`: its start and its body."""
    body = json.dumps(
        {
            "type": "about:blank",
            "title": http.HTTPStatus(status).phrase,
            "status": status,
            "detail": detail,
            "request_id": request.id,
        }
    ).encode()
    start = {
        "type": "http.response.start",
        "status": status,
        "headers": [
            (b"content-type", b"application/problem+json"),
            (b"content-length", str(len(body)).encode()),
            (REQUEST_ID, request.id.encode("latin-1")),
            *headers,
        ],
    }
    return start, {"type": "http.response.body", "body": body}
