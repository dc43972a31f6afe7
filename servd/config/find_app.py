"""Finds the apps in a folder by their source, without importing anything. Impure."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from typing import Literal

from servd.config.module_source import ModuleSource, read_module
from servd.core.quick_dataclass import dataclass

_FRAMEWORKS = frozenset({
    "FastAPI", "Starlette", "Flask", "Quart", "Litestar", "Sanic", "Bottle", "FastHTML",
    "get_asgi_application", "get_wsgi_application", "make_wsgi_app",
})  # fmt: skip
"""Calls that make an app, wherever they come from."""

_NO_FRAMEWORKS = frozenset({"Typer", "Celery", "Huey", "Application", "QApplication", "Tk"})
"""Calls that make what is often called an app, and cannot be served."""

_APP_NAMES = ("app", "application", "api", "asgi", "wsgi", "asgi_app", "wsgi_app")
_IMPORTED_NAMES = ("app", "application")
_FACTORY_NAMES = ("create_app", "make_app", "get_app", "build_app", "app_factory")
_FIRST_MODULES = ("main", "app", "application", "asgi", "api", "server", "web", "service", "wsgi")
_NO_APPS = ("setup", "conftest", "manage", "noxfile", "tasks")
_MAX_FILES = 200


@dataclass(frozen=True, slots=True)
class FoundApp:
    """An app of a folder: its `target` as the configuration names it under `key`."""

    target: str
    key: Literal["app", "bento"] = "app"
    is_factory: bool = False


def find_apps(folder: str) -> list[FoundApp]:
    """Returns the apps in a folder and in its packages, the most likely one first: those that are
    made by a framework, then those that are called like an app.
    """
    found = [each for module, path in _modules(folder) for each in [*_apps_in(module, path)][:1]]
    return [app for _, app in sorted(found, key=lambda each: each[0])]


def _modules(folder: str) -> Iterator[tuple[str, str]]:
    """Yields names of modules with their files: those of the folder, then those of packages."""
    files, folders = _entries(folder)
    found = [(name, os.path.join(folder, f"{name}.py")) for name in files]
    for package in folders:
        inner = _entries(os.path.join(folder, package))[0]
        found += [
            (f"{package}.{name}", os.path.join(folder, package, f"{name}.py"))
            for name in inner
            if name in _FIRST_MODULES
        ]
    yield from found[:_MAX_FILES]


def _entries(folder: str) -> tuple[list[str], list[str]]:
    """Returns the modules of a folder, likely ones first, and the folders that may be packages."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return [], []
    modules = [name.removesuffix(".py") for name in names if name.endswith(".py")]
    usable = [
        name
        for name in modules
        if name.isidentifier() and name not in _NO_APPS and not name.startswith(("test_", "_"))
    ]
    rank = {name: number for number, name in enumerate(_FIRST_MODULES)}
    usable.sort(key=lambda name: rank.get(name, len(rank)))
    folders = [
        name
        for name in names
        if name.isidentifier() and name != "tests" and os.path.isdir(os.path.join(folder, name))
    ]
    return usable, folders


def _apps_in(module: str, path: str) -> Iterator[tuple[int, FoundApp]]:
    """Yields the apps of a module, each with a rank: 0 for a certain one."""
    try:
        source = read_module(path)
    except (OSError, SyntaxError, ValueError):
        return
    if source is None:
        return
    for statement in source.body:
        for name, key in _made(statement):
            yield 0, FoundApp(f"{module}:{name}", key)
    functions = [each for each in source.body if isinstance(each, ast.FunctionDef)]
    for each in functions:
        if each.name in _FACTORY_NAMES and _takes_nothing(each):
            yield 1, FoundApp(f"{module}:{each.name}", is_factory=True)
    for name in _named(source):
        yield 1, FoundApp(f"{module}:{name}")


def _made(statement: ast.stmt) -> Iterator[tuple[str, Literal["app", "bento"]]]:
    """Yields what is an app by the way it is made."""
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        if _callee(statement.value) in _FRAMEWORKS:
            for target in _targets(statement):
                yield target, "app"
    elif isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        arguments = [argument.arg for argument in statement.args.args]
        is_asgi = isinstance(statement, ast.AsyncFunctionDef) and (
            arguments == ["scope", "receive", "send"]
        )
        if is_asgi or arguments == ["environ", "start_response"]:
            yield statement.name, "app"
    elif isinstance(statement, ast.ClassDef):
        for decorator in statement.decorator_list:
            called = decorator.func if isinstance(decorator, ast.Call) else decorator
            if ast.unparse(called) == "bentoml.service":
                yield statement.name, "bento"


def _named(source: ModuleSource) -> Iterator[str]:
    """Yields what is called like an app and may be one."""
    for statement in source.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            value = statement.value
            may_be = isinstance(value, ast.Call | ast.Name | ast.Attribute)
            if may_be and _callee(value) not in _NO_FRAMEWORKS:
                yield from (name for name in _targets(statement) if name in _APP_NAMES)
        elif isinstance(statement, ast.ImportFrom):
            names = {alias.asname or alias.name for alias in statement.names}
            yield from (name for name in _IMPORTED_NAMES if name in names)


def _targets(statement: ast.Assign | ast.AnnAssign) -> list[str]:
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _callee(value: ast.expr | None) -> str:
    """Returns the last name of what a call calls, "" for another expression."""
    if not isinstance(value, ast.Call):
        return ""
    called = value.func
    if isinstance(called, ast.Attribute):
        return called.attr
    return called.id if isinstance(called, ast.Name) else ""


def _takes_nothing(function: ast.FunctionDef) -> bool:
    """Whether a function can be called without arguments."""
    given = function.args
    needed = len(given.posonlyargs) + len(given.args) - len(given.defaults)
    return needed == 0 and None not in given.kw_defaults
