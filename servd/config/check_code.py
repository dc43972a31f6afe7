"""Looks in the source of apps for what keeps them from being imported, and runs nothing. Impure."""

from __future__ import annotations

import ast
import fnmatch
import functools
import os
import re
import sys
from collections.abc import Callable, Iterator

from servd.config.explain import did_you_mean
from servd.config.find_module import is_importable, sources_of
from servd.config.load import Loaded
from servd.config.module_source import ModuleSource, read_module
from servd.config.service import Service
from servd.config.validation_context import ValidationContext
from servd.core.diagnostics import Diagnostic

_HINT = "`servd check --imports` imports it"


def check_code(loaded: Loaded) -> list[Diagnostic]:
    """Returns a warning for each app whose source plainly cannot be imported: a syntax error, no
    such name, a missing package. Where only the import can tell, it says nothing.
    """
    if loaded.layers is None:
        return []
    checked = ValidationContext(loaded.config, loaded.layers)
    read = functools.cache(read_module)
    return [
        checked.problem(("services", name, "app"), message, hint, severity="warning", code="import")
        for name, service in loaded.config.services.items()
        if service.app and not _is_elsewhere(checked, service)
        for message, hint in _check_app(service, read)
    ]


def _is_elsewhere(checked: ValidationContext, service: Service) -> bool:
    """Whether the worker may have other modules than this process and the service's folder."""
    defaults = checked.config.defaults
    passed = any(fnmatch.fnmatch("PYTHONPATH", each) for each in service.env_passthrough)
    given = "PYTHONPATH" in {*service.env, *defaults.env} or (passed and "PYTHONPATH" in os.environ)
    files = service.env_file or defaults.env_file
    return bool(service.python or given or files) or not os.path.isdir(service.directory)


def _check_app(
    service: Service, read: Callable[[str], ModuleSource | None]
) -> Iterator[tuple[str, str]]:
    """Yields the message and the hint of the first problem of an app."""
    target, _, attributes = service.app.rpartition(":")
    if target.endswith(".py"):
        files = [os.path.join(service.directory, target)]
    else:
        files = sources_of(target, service.directory)
    source: ModuleSource | None = None
    for file in files:
        shown = os.path.relpath(file, service.directory)
        try:
            source = read(file)
        except SyntaxError as error:
            where = f"{shown}:{error.lineno}" if error.lineno else shown
            yield f"cannot import {target}: {where}: {error.msg}", _HINT
            return
        except (OSError, ValueError):
            return
        if source is None:
            return
        if gone := _missing_import(source, file, service.directory):
            name, line = gone
            yield f"cannot import {target}: {shown}:{line}: no module named {name}", _HINT
            return
    if source is None or not source.is_whole:
        return
    name = attributes.partition(".")[0]
    if name in source.names or _has_module(files[-1], name):
        return
    near = did_you_mean(name, sorted(each for each in source.names if not each.startswith("_")))
    yield f'{target} has no attribute "{name}"', "; ".join(filter(None, [near, _HINT]))


def _missing_import(source: ModuleSource, file: str, directory: str) -> tuple[str, int] | None:
    """Returns a module that the first statements import and that does not exist, with its line. The
    code of other modules of the app may make modules importable: nothing is said after one.
    """
    folders = [directory, os.path.dirname(file)]
    for statement in source.body:
        if isinstance(statement, ast.Import):
            names = [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom):
            if statement.level:
                return None
            names = [statement.module or ""]
        elif _is_harmless(statement):
            continue
        else:
            return None
        for name in names:
            first = name.partition(".")[0]
            if first in sys.stdlib_module_names:
                continue
            if not is_importable(first, folders):
                return first, statement.lineno
            if is_importable(first, folders, installed=False):
                return None
    return None


def _is_harmless(statement: ast.stmt) -> bool:
    """Whether a statement runs nothing that could change what can be imported."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _has_module(file: str, name: str) -> bool:
    """Whether a package has a module of this name, which an import of it makes an attribute."""
    folder = os.path.dirname(file)
    if os.path.basename(file) != "__init__.py":
        return False
    return os.path.isdir(os.path.join(folder, name)) or any(
        re.fullmatch(rf"{re.escape(name)}\..*(py|so|pyc|pyd)", each) for each in os.listdir(folder)
    )
