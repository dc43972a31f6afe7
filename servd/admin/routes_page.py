"""The status page, and the library that lays out its graph."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Response

_SCRIPTS = (
    "client.js", "words.js", "problems.js", "history.js", "chart.js", "table.js", "graph.js",
    "lines.js", "actions.js", "app.js",
)  # fmt: skip

router = APIRouter()


@cache
def graph_script() -> str:
    """Returns dagre, which lays out the graph: the page runs it when it draws one."""
    path = files("servd.admin") / "page_files" / "vendor" / "dagre.min.js"
    return path.read_text("utf-8")


@cache
def document() -> tuple[bytes, str]:
    """Returns the HTML, and the Content-Security-Policy that allows only its scripts and style."""
    folder = files("servd.admin") / "page_files"
    style = (folder / "style.css").read_text("utf-8")
    parts = "\n".join((folder / name).read_text("utf-8") for name in _SCRIPTS)
    script = f'"use strict";\n(() => {{\n{parts}\n}})();\n'
    html = (folder / "index.html").read_text("utf-8")
    html = html.replace("/* style */", style).replace("/* script */", script)
    policy = (
        f"default-src 'none'; script-src {_source(script)} {_source(graph_script())};"
        f" style-src {_source(style)};"
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


@router.get(
    "/page/dagre.min.js",
    response_class=Response,
    summary="The library that lays out the graph of the page",
    responses={200: {"content": {"text/javascript": {"schema": {"type": "string"}}}}},
)
async def dagre() -> Response:
    sent = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
    return Response(graph_script(), headers=sent, media_type="text/javascript")
