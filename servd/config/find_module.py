"""Looks for the module of an app without importing anything. Impure."""

from __future__ import annotations

import importlib.machinery as machinery
import importlib.util
import os
import re
from collections.abc import Iterator
from importlib.machinery import FileFinder, ModuleSpec

from servd.config.explain import did_you_mean
from servd.config.merge import is_file_target
from servd.config.service import Service
from servd.config.tree import Path
from servd.config.validation_context import ValidationContext
from servd.core.diagnostics import Diagnostic

_LOADERS = (
    (machinery.ExtensionFileLoader, machinery.EXTENSION_SUFFIXES),
    (machinery.SourceFileLoader, machinery.SOURCE_SUFFIXES),
    (machinery.SourcelessFileLoader, machinery.BYTECODE_SUFFIXES),
)
_MAKES_MODULES = ("__path__", "sys.modules", "import_module", "lazy")
"""Signs of a package that has other modules than those in its folder."""


def check_modules(checked: ValidationContext) -> list[Diagnostic]:
    """Returns a warning for each app whose module is not where a worker looks for it. Not an
    error: the code may be added later, or from a place that only the worker knows.
    """
    return [
        problem
        for name, service in checked.config.services.items()
        for problem in _check_module(checked, ("services", name, "app"), service)
    ]


def _check_module(checked: ValidationContext, path: Path, service: Service) -> Iterator[Diagnostic]:
    module = service.app.rpartition(":")[0]
    elsewhere = service.python or "PYTHONPATH" in {*service.env, *checked.config.defaults.env}
    if elsewhere or service.env_file or is_file_target(service.app):
        return
    if not re.fullmatch(r"\w+(\.\w+)*", module) or not os.path.isdir(service.directory):
        return
    if gone := missing_module(module, service.directory):
        hint = (
            did_you_mean(gone, modules_in(service.directory))
            or "set directory to the folder that contains it"
        )
        message = f"module not found: {gone} (searched {service.directory} and sys.path)"
        yield checked.problem(path, message, hint, severity="warning", code="file")


def missing_module(module: str, directory: str) -> str:
    """Returns the first part of `module` that a worker in `directory` cannot find, or "". Installed
    packages are assumed to be complete.
    """
    first, *rest = module.split(".")
    spec = _in_folders(first, [directory])
    if spec is None:
        return "" if _is_installed(first) else first
    name = first
    for step in rest:
        if spec.submodule_search_locations is None:
            return f"{name}.{step}"
        if _may_make_modules(spec):
            return ""
        spec = _in_folders(step, list(spec.submodule_search_locations))
        name = f"{name}.{step}"
        if spec is None:
            return name
    return ""


def sources_of(module: str, directory: str) -> list[str]:
    """Returns the source files that an import of `module` runs in a worker in `directory`: those of
    its packages, then its own. Returns [] if it is found elsewhere, or is not a source file.
    """
    folders, files = [directory], list[str]()
    spec: ModuleSpec | None = None
    for step in module.split("."):
        spec = _in_folders(step, folders)
        if spec is None:
            return []
        if spec.has_location and spec.origin is not None:
            files.append(spec.origin)
        folders = list(spec.submodule_search_locations or ())
    is_source = all(file.endswith(".py") for file in files)
    return files if is_source and spec is not None and spec.has_location else []


def is_importable(name: str, folders: list[str], *, installed: bool = True) -> bool:
    """Whether a top-level module is in one of the folders, or else (with `installed`) installed."""
    return _in_folders(name, folders) is not None or (installed and _is_installed(name))


def modules_in(directory: str) -> list[str]:
    """Returns the names of the modules in a folder."""
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    return sorted(name.removesuffix(".py") for name in names if name.endswith(".py"))


def _in_folders(name: str, folders: list[str]) -> ModuleSpec | None:
    """Uses its own finders: those of the import system cache what they found."""
    for folder in folders:
        spec = FileFinder(folder, *_LOADERS).find_spec(name)
        if spec is not None:
            return spec
    return None


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # a module without a spec exists
        return True


def _may_make_modules(spec: ModuleSpec) -> bool:
    if spec.origin is None or not spec.origin.endswith(".py"):
        return False
    try:
        with open(spec.origin, encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        return True
    return any(sign in text for sign in _MAKES_MODULES)
