"""What kind of app an object is, and what is none."""

from __future__ import annotations

import functools
import sys
import textwrap
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette

from servd.worker.interface import NotAnAppError, interface_of

from support.harness import Servd, command, wait_until


async def asgi3(scope: Any, receive: Any, send: Any) -> None: ...


async def asgi3_of_any(*arguments: Any) -> None: ...


def asgi2(scope: Any) -> Any: ...


def wsgi(environ: Any, start_response: Any) -> Any: ...


def wsgi_with_more(environ: Any, start_response: Any, more: int = 1) -> Any: ...


def returns_asgi3(scope: Any, receive: Any, send: Any) -> Any:
    return asgi3(scope, receive, send)


class Asgi2:
    def __init__(self, scope: Any) -> None: ...
    async def __call__(self, receive: Any, send: Any) -> None: ...


class Wsgi:
    """As Flask's and Django's."""

    def __call__(self, environ: Any, start_response: Any) -> Any: ...


class WsgiClass:
    def __init__(self, environ: Any, start_response: Any) -> None: ...


class Asgi3:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


async def async_factory() -> None: ...


def factory() -> Any: ...


@functools.wraps(wsgi)
def decorated(*arguments: Any) -> Any: ...


def unknown(*arguments: Any) -> Any: ...


@pytest.mark.parametrize(
    ("app", "kind"),
    [
        (asgi3, "asgi3"), (asgi3_of_any, "asgi3"), (returns_asgi3, "asgi3"), (Asgi3(), "asgi3"),
        (FastAPI(), "asgi3"), (Starlette(), "asgi3"), (functools.partial(asgi3), "asgi3"),
        (asgi2, "asgi2"), (Asgi2, "asgi2"), (wsgi, "wsgi"), (Wsgi(), "wsgi"),
        (WsgiClass, "wsgi"), (decorated, "wsgi"), (wsgi_with_more, "wsgi"),
        (Wsgi().__call__, "wsgi"),
    ],
)  # fmt: skip
def test_an_app_is_told_by_how_it_is_called(app: Any, kind: str) -> None:
    assert interface_of(app) == kind


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (None, "is None, not an ASGI or WSGI app"),
        ({}, "is a dict, not an ASGI or WSGI app"),
        (sys, "is a module, not an ASGI or WSGI app"),
        (1, "is an int, not an"),
        (factory, "set factory = true"),
        (async_factory, "a factory (factory = true) must be sync"),
        (FastAPI, "is the class FastAPI: use an instance"),
        (unknown, 'set interface = "asgi3" or "wsgi"'),
        (lambda a, b, c, d: None, "takes 4 arguments"),
    ],
)
def test_what_is_no_app_is_said_with_what_to_do(what: Any, said: str) -> None:
    with pytest.raises(NotAnAppError) as refused:
        interface_of(what)
    assert said in str(refused.value)


def test_what_is_no_app_fails_the_start_the_reload_and_the_check(servd: Servd) -> None:
    apps = """
        def wsgi(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [b"wsgi"]
        def make():
            return wsgi
        nothing = None
        """
    config = '[services.web]\napp = "apps:{}"\nlisten = "127.0.0.1:0"\n'
    daemon = servd(config.format("wsgi"), apps_py=apps).ready()
    assert daemon.get("web").text == "wsgi"
    for target, said in (("make", "set factory = true"), ("nothing", "is None")):
        answer = daemon.reload(config.format(target))
        assert f"apps:{target}" in str(answer)
        assert said in str(answer)
        assert daemon.status()["last_reload"]["outcome"] == "rolled_back"
        checked = command("check", "--imports", folder=servd.folder)
        assert checked.returncode == 1
        assert said in checked.stderr
    assert daemon.get("web").text == "wsgi"
    assert daemon.reload(config.format("make") + "factory = true\n")["outcome"] == "applied"
    assert daemon.get("web").text == "wsgi"
    assert daemon.stop() == 0


NAMES = ("queue", "email", "http", "ssl", "socket", "json", "types", "select", "uuid", "code")


def test_files_named_as_the_standard_librarys_stop_no_worker(servd: Servd) -> None:
    folder = servd.folder / "app"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.py").write_text("raise RuntimeError('it is the user's')")
    (folder / "main.py").write_text(
        textwrap.dedent(
            """
            async def app(scope, receive, send):
                assert scope["type"] == "http"
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"ok"})

            def wsgi(environ, start_response):
                start_response("200 OK", [])
                return [b"ok"]
            """
        )
    )
    daemon = servd(
        """
        [defaults]
        directory = "app"
        [services.web]
        app = "main:app"
        listen = "127.0.0.1:0"
        [services.h11]
        app = "main:app"
        listen = "127.0.0.1:0"
        uvicorn = { http = "h11", ws = "websockets", loop = "asyncio" }
        [services.wsgi]
        app = "main:wsgi"
        listen = "127.0.0.1:0"
        """
    ).ready()
    for name in ("web", "h11", "wsgi"):
        assert daemon.get(name).text == "ok"
    assert daemon.stop() == 0


ODD = """
import asyncio, contextlib, logging.config, signal, sys
from fastapi import FastAPI

async def prepare():
    return sys.argv

argv = asyncio.run(prepare())
logging.config.dictConfig({"version": 1, "disable_existing_loggers": True})
signal.signal(signal.SIGTERM, lambda *_: None)

@contextlib.asynccontextmanager
async def lifespan(app):
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGINT, lambda *_: None)
    yield
    print("shut down", flush=True)

app = FastAPI(lifespan=lifespan)

@app.get("/")
def root():
    return argv[1:]

@app.get("/fails")
def fails():
    raise RuntimeError("seen")
"""


def test_what_apps_do_at_their_import_and_startup_works(servd: Servd) -> None:
    daemon = servd('[services.web]\napp = "main:app"\nlisten = "127.0.0.1:0"\n', main_py=ODD)
    daemon.ready()
    assert daemon.get("web").json() == []
    assert daemon.get("web", "/fails").status_code == 500
    wait_until(lambda: "RuntimeError: seen" in daemon.output, "its exception is logged")
    assert daemon.stop() == 0
    assert daemon.lines("shut down", service="web")
    assert not daemon.find("worker killed")


@pytest.mark.parametrize("init", [True, False])
def test_a_file_that_imports_from_its_package_gets_a_hint(servd: Servd, *, init: bool) -> None:
    package = servd.folder / "pkg"
    package.mkdir()
    if init:
        (package / "__init__.py").touch()
    (package / "other.py").write_text("app = None\n")
    (package / "main.py").write_text("from .other import app\n")
    servd.write(servd_toml='[services.web]\napp = "pkg/main.py:app"\n')
    checked = command("check", "--imports", folder=servd.folder)
    assert checked.returncode == 1
    daemon = servd('[services.web]\napp = "pkg/main.py:app"\nrestart = "never"\n')
    failed = daemon.wait_for("service cannot start", service="web")
    assert 'write app = "pkg.main:app"' in failed["error"]
