"""The status page: one self-contained document, assembled from its parts."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Response

_SCRIPTS = ("client.js", "graph.js", "chart.js", "services.js", "lines.js", "app.js")

router = APIRouter()


@cache
def document() -> tuple[bytes, str]:
    """Returns the HTML, and the Content-Security-Policy that allows only its script and style."""
    folder = files("servd.admin") / "page_files"
    style = (folder / "style.css").read_text("utf-8")
    parts = "\n".join((folder / name).read_text("utf-8") for name in _SCRIPTS)
    script = f'"use strict";\n(() => {{\n{parts}\n}})();\n'
    html = (folder / "index.html").read_text("utf-8")
    html = html.replace("/* style */", style).replace("/* script */", script)
    policy = (
        f"default-src 'none'; script-src {_source(script)}; style-src {_source(style)};"
        " connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'"
    )
    return html.encode(), policy


def _source(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def headers() -> dict[str, str]:
    """Returns the headers of the page."""
    return {
        "content-type": "text/html; charset=utf-8",
        "content-security-policy": document()[1],
        "cache-control": "no-store",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }


@router.get(
    "/",
    response_class=Response,
    summary="The status page",
    responses={200: {"content": {"text/html": {"schema": {"type": "string"}}}}},
)
async def page() -> Response:
    return Response(document()[0], headers=headers())
