"""`servd init` finds the app of a folder by its source, and runs nothing of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from servd.config.find_app import FoundApp, find_apps


def apps_of(folder: Path, **files: str) -> list[FoundApp]:
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return find_apps(str(folder))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from fastapi import FastAPI\nweb = FastAPI()", FoundApp("main:web")),
        ("import flask\napp = flask.Flask(__name__)", FoundApp("main:app")),
        ("app: object = Starlette(routes=[])", FoundApp("main:app")),
        ("async def run(scope, receive, send): ...", FoundApp("main:run")),
        ("def run(environ, start_response): ...", FoundApp("main:run")),
        ("application = make(1)", FoundApp("main:application")),
        ("from shop.web import app", FoundApp("main:app")),
        ("from shop.web import site as app", FoundApp("main:app")),
        ("def create_app(): ...", FoundApp("main:create_app", is_factory=True)),
        ("def create_app(debug=False, *, x=1): ...", FoundApp("main:create_app", is_factory=True)),
        ("@bentoml.service(workers=2)\nclass Model: ...", FoundApp("main:Model", "bento")),
    ],
)
def test_an_app_is_found(tmp_path: Path, text: str, found: FoundApp) -> None:
    assert apps_of(tmp_path, main=text) == [found]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "raise SystemExit('it ran')",
        "import typer\napp = typer.Typer()",
        "app = web.Application()",
        "app = 'name'",
        "import app",
        "def create_app(settings): ...",
        "def create_app(*, settings): ...",
        "app = (",
        "app = 1\0",
    ],
)
def test_what_is_no_app_is_not_found(tmp_path: Path, text: str) -> None:
    assert apps_of(tmp_path, main=text) == []


def test_the_likeliest_app_is_first(tmp_path: Path) -> None:
    app = "app = FastAPI()"
    found = apps_of(
        tmp_path, zoo=app, main="app = make()", web=app, shop__asgi=app, shop__other=app,
        test_it=app, tests__main=app, setup=app,
    )  # fmt: skip
    assert [each.target for each in found] == ["web:app", "zoo:app", "shop.asgi:app", "main:app"]
