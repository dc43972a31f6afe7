"""Tells what kind of app an object is: ASGI 3, ASGI 2 (single or double callable) or WSGI."""

from __future__ import annotations

import functools
import inspect
from typing import Any

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_BY_ARGUMENTS = {1: "asgi2", 2: "wsgi", 3: "asgi3"}
"""What a plain function with this many arguments is: of (scope), of (environ, start_response), or
of (scope, receive, send), which returns an awaitable."""


class NotAnAppError(Exception):
    """An object is not an app; the message says what it is, and which key to set."""


def interface_of(app: Any) -> str:
    """Returns `asgi3`, `asgi2` or `wsgi`. Raises `NotAnAppError`."""
    if not callable(app):
        kind = "None" if app is None else _with_article(type(app).__name__)
        raise NotAnAppError(f"is {kind}, not an ASGI or WSGI app")
    count = _arguments_of(app)
    if inspect.isclass(app):
        return _of_class(app, count)
    if _is_coroutine_function(app):
        if count in (None, 3):
            return "asgi3"
        if count == 0:
            raise NotAnAppError(
                "is an async function without arguments: a factory (factory = true) must be sync"
            )
        raise NotAnAppError(f"is an async function with {count} arguments: an ASGI app takes three")
    if count == 0:
        raise NotAnAppError("takes no arguments: set factory = true if it returns the app")
    if count is None:
        raise NotAnAppError('may be ASGI or WSGI: set interface = "asgi3" or "wsgi"')
    if count not in _BY_ARGUMENTS:
        raise NotAnAppError(f"takes {count} arguments: an ASGI app takes three, a WSGI app two")
    return _BY_ARGUMENTS[count]


def _of_class(app: Any, count: int | None) -> str:
    """A class is called like a function: `App(scope)`, `App(environ, start_response)`."""
    if hasattr(app, "__await__"):
        return "asgi3"
    if count in (1, 2):
        return _BY_ARGUMENTS[count]
    raise NotAnAppError(f"is the class {app.__name__}: use an instance, or set factory = true")


def _arguments_of(app: Any) -> int | None:
    """Returns how many arguments a callable wants; None if any number may be right."""
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters):
        return None
    wanted = [p for p in parameters if p.kind in _POSITIONAL]
    required = [p for p in wanted if p.default is inspect.Parameter.empty]
    return len(required) if required else len(wanted)


def _is_coroutine_function(app: Any) -> bool:
    while isinstance(app, functools.partial):
        app = app.func
    call = app if inspect.isroutine(app) else type(app).__call__
    return inspect.iscoroutinefunction(call)


def _with_article(name: str) -> str:
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"
