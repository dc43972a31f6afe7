"""Loads the application object that "module:attr" or "path/file.py:app" names."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from types import ModuleType
from typing import Any

from servd.wire.worker_spec import AppSpec
from servd.worker.interface import NotAnAppError, interface_of

_MESSAGE_CHARACTERS = 2000


class AppLoadError(Exception):
    """The app cannot be loaded; the reason in one line. `__cause__` is the app's own exception."""


class LoadsNowError(AppLoadError):
    """The app can be loaded now, but what it declares was unknown when it was planned."""


def load(spec: AppSpec, worker: int) -> Any:
    """Loads what `spec` names, an app or a BentoML service. Raises `AppLoadError`."""
    if spec.bento is not None:
        from servd.worker.bento.load import load_bento

        return load_bento(spec.app, spec.directory, spec.bento, worker)
    return load_app(
        spec.app, factory=spec.factory, directory=spec.directory, interface=spec.interface
    )


def load_app(target: str, *, factory: bool, directory: str, interface: str = "auto") -> Any:
    """Imports `target` with `directory` first on sys.path; calls it if it is a `factory`. Raises
    `AppLoadError`, also for SystemExit of the imported code, and for what is no app.
    """
    app = _load(target, factory=factory, directory=directory)
    if interface == "auto" or not callable(app):
        try:
            interface_of(app)
        except NotAnAppError as error:
            what = f"the return value of the factory {target}" if factory else target
            raise AppLoadError(f"{what} {error}") from None
    return app


def _load(target: str, *, factory: bool, directory: str) -> Any:
    if directory not in sys.path:
        sys.path.insert(0, directory)
    source, _, attributes = target.rpartition(":")
    try:
        module = _from_file(source) if source.endswith(".py") else _from_name(source)
    except AppLoadError:
        raise
    except (Exception, SystemExit) as error:
        hint = _package_hint(source, attributes, error)
        raise AppLoadError(f"cannot import {source}: {in_one_line(error)}{hint}") from error
    app: Any = module
    for name in attributes.split("."):
        try:
            app = getattr(app, name)
        except AttributeError:
            raise AppLoadError(f'{source} has no attribute "{name}"') from None
    if not factory:
        if type(app).__module__.startswith("_bentoml_sdk."):  # callable, but not an ASGI app
            bento = f'write bento = "{target}" (or --bento)'
            raise AppLoadError(f"{target} is a BentoML service: {bento}")
        return app
    try:
        return app()
    except (Exception, SystemExit) as error:
        raise AppLoadError(f"the factory {target} failed: {in_one_line(error)}") from error


def _package_hint(source: str, attributes: str, error: BaseException) -> str:
    """Returns what to write for a file that imports from its own package."""
    relative = isinstance(error, ImportError) and "relative import" in str(error)
    if not (relative and source.endswith(".py")):
        return ""
    folder, name = os.path.split(os.path.abspath(source))
    names = [name.removesuffix(".py")]
    while os.path.isfile(os.path.join(folder, "__init__.py")):
        folder, name = os.path.split(folder)
        names.insert(0, name)
    names = names if len(names) > 1 else [os.path.basename(folder), *names]
    return f' (write app = "{".".join(names)}:{attributes}" with directory = "{folder}")'


def missing_variable(error: BaseException | None) -> str | None:
    """Returns the name whose lookup in `os.environ[...]` failed, if that is the cause."""
    while error is not None:
        if isinstance(error, KeyError) and error.args and isinstance(error.args[0], str):
            return error.args[0]
        error = error.__cause__ or error.__context__
    return None


def _from_name(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # a missing target is our error; a missing import within the target is the app's
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            searched = f"searched {sys.path[0]}, then sys.path"
            raise AppLoadError(f'cannot import "{error.name}" ({searched})') from None
        raise


def _from_file(path: str) -> ModuleType:
    if not os.path.isfile(path):
        raise AppLoadError(f"file not found: {path}")
    name = os.path.basename(path).removesuffix(".py")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise AppLoadError(f"{path} is not a Python file")
    folder = os.path.dirname(path)
    if folder not in sys.path:
        sys.path.insert(1, folder)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def in_one_line(error: BaseException) -> str:
    """Returns the error's type and its message, whose lines follow one another."""
    text = " ".join(str(error).split())
    if len(text) > _MESSAGE_CHARACTERS:
        text = text[:_MESSAGE_CHARACTERS] + "..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
