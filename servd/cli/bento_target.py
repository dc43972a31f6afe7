"""Detects whether a target of `servd serve` is a BentoML service, from its source alone."""

from __future__ import annotations

import ast
import functools
import os
from collections.abc import Iterator, Mapping
from importlib.machinery import PathFinder

_FOLDER_FILES = ("bentofile.yaml", "bento.yaml", "service.py")
_MAX_IMPORT_DEPTH = 5

_MODULES = {"bentoml", "bentoml.legacy"}
_MAKERS = {"service", "Service"}
"""What makes a service, as a decorator or by a call, and the modules of BentoML that have it."""


def is_bento(target: str, working_dir: str, environ: Mapping[str, str]) -> bool | None:
    """Whether `target` is the import string of a BentoML service, a folder with one, or a Bento in
    BentoML's store. The module's source decides; its imports are followed within the working
    directory. None: only an import can tell. What is nowhere is left to BentoML, which says so.
    """
    folder = os.path.join(working_dir, os.path.expanduser(target))
    if os.path.isdir(folder):
        return any(os.path.exists(os.path.join(folder, name)) for name in _FOLDER_FILES)
    module, _, attribute = target.partition(":")
    source = source_of(module, working_dir)
    if source is not None:
        name, dot, _ = attribute.partition(".")
        found = _Module(source, working_dir).verdict(name)
        return None if found and dot else found
    home = environ.get("BENTOML_HOME") or os.path.expanduser("~/bentoml")
    if _is_stored(os.path.join(home, "bentos", module), attribute):
        return True
    top = module.partition(".")[0]
    is_nowhere = not module.endswith(".py") and PathFinder.find_spec(top) is None
    return is_nowhere and PathFinder.find_spec("bentoml") is not None


def _is_stored(folder: str, version: str) -> bool:
    """Whether BentoML's store has this version of a Bento, which may be shortened, or any."""
    try:
        names = [entry.name for entry in os.scandir(folder) if entry.is_dir()]
    except OSError:
        return False
    return any(version in ("", "latest") or name.startswith(version) for name in names)


def source_of(module: str, folder: str) -> str | None:
    """Returns the file of a module that is given by its name or path."""
    stem = os.path.join(folder, module.replace(".", os.sep))
    for path in (os.path.join(folder, module), f"{stem}.py", os.path.join(stem, "__init__.py")):
        if path.endswith(".py") and os.path.isfile(path):
            return path
    return None


class _Module:
    """The source of one module, searched for BentoML services."""

    def __init__(self, path: str, working_dir: str, depth: int = 0) -> None:
        self.path = path
        self.working_dir = working_dir
        self.depth = depth
        self.statements = _statements(path)
        self.modules: set[str] = set()
        self.makers: set[str] = set()
        """Names of what makes a service, and of the modules that have it."""
        for node in self.statements:
            if isinstance(node, ast.Import):
                for item in node.names:
                    if _is_of_bentoml(item.name):
                        self.modules.add(item.asname or "bentoml")
            elif isinstance(node, ast.ImportFrom) and node.module in _MODULES and not node.level:
                for item in node.names:
                    if item.name in _MAKERS:
                        self.makers.add(item.asname or item.name)
                    elif item.name == "legacy":
                        self.modules.add(item.asname or item.name)

    def verdict(self, name: str) -> bool | None:
        """Whether `name` is a service; None where the source leaves that open."""
        if self.has(name):
            return True
        return None if self._may_make(name) and not self._is_plain(name) else False

    def _classes(self, name: str) -> list[ast.ClassDef]:
        return [n for n in self.statements if isinstance(n, ast.ClassDef) and n.name == name]

    def _may_make(self, name: str) -> bool:
        """Whether the module uses BentoML, or one of the working directory that makes `name`."""
        imported = list(self._imported())
        if any(_is_of_bentoml(module) for _, _, module, _ in imported):
            return True
        used = {name, *self._used_for(name)}
        for alias, original, module, level in imported:
            other = self._other(module, level) if alias in used else None
            if other is not None and other._may_make(original):
                return True
        return False

    def _used_for(self, name: str) -> set[str]:
        """Returns the names in what defines `name`."""
        decorators = [d for each in self._classes(name) for d in each.decorator_list]
        found = [*decorators, *self._values(name)]
        return {n.id for each in found for n in ast.walk(each) if isinstance(n, ast.Name)}

    def _values(self, name: str) -> Iterator[ast.expr]:
        """Yields what is assigned to `name`."""
        for node in self.statements:
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if any(isinstance(to, ast.Name) and to.id == name for to in targets):
                    yield node.value

    def _is_plain(self, name: str) -> bool:
        """Whether `name` is a function, a class without a decorator, or an object of a library:
        `app = FastAPI()`.
        """
        for node in self.statements:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
                return True
        found = any(not each.decorator_list for each in self._classes(name))
        for value in self._values(name):
            if isinstance(value, ast.Call):
                found = self._is_of_library(value.func)
        return found

    def _is_of_library(self, node: ast.expr) -> bool:
        """Whether an expression is imported from outside the working directory."""
        while isinstance(node, ast.Attribute):
            node = node.value
        for name, _, module, level in self._imported():
            if isinstance(node, ast.Name) and name == node.id:
                return not _is_of_bentoml(module) and self._other(module, level) is None
        return False

    def _imported(self) -> Iterator[tuple[str, str, str, int]]:
        """Yields each imported name, its name there, and its module with the dots before it."""
        for node in self.statements:
            if isinstance(node, ast.Import):
                for item in node.names:
                    yield item.asname or item.name.partition(".")[0], "", item.name, 0
            elif isinstance(node, ast.ImportFrom):
                for item in node.names:
                    yield item.asname or item.name, item.name, node.module or "", node.level

    def has(self, name: str) -> bool:
        """Whether `name` is a service; with an empty name, whether there is any."""
        for node in self.statements:
            if isinstance(node, ast.ClassDef) and name in ("", node.name):
                decorators = node.decorator_list
                if any(map(self._makes, decorators)):
                    return True
        if not name:
            return False
        if any(self._makes(value) or self._is(value, name) for value in self._values(name)):
            return True
        # a name missing in a module that uses BentoML: BentoML reports the error
        return self._imports(name) or (bool(self.modules) and not self._may_define(name))

    def _may_define(self, name: str) -> bool:
        names: set[str] = set()
        for node in self.statements:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                names.add(node.name)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                names |= {n.asname or n.name for n in node.names}
            else:
                names |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        return name in names or "*" in names

    def _makes(self, node: ast.expr) -> bool:
        """Whether the expression is `bentoml.service`, `bentoml.Service`, `bentoml.legacy.Service`,
        or a call of it.
        """
        while isinstance(node, ast.Call):
            node = node.func
        if isinstance(node, ast.Attribute) and node.attr in _MAKERS:
            module = node.value
            if isinstance(module, ast.Attribute) and module.attr == "legacy":
                module = module.value
            return isinstance(module, ast.Name) and module.id in self.modules
        return isinstance(node, ast.Name) and node.id in self.makers

    def _is(self, node: ast.expr, name: str) -> bool:
        """Whether the expression is another name for a service: `Foo`, or `pack.module.Foo`."""
        if isinstance(node, ast.Name):
            return node.id != name and self.has(node.id)
        if isinstance(node, ast.Attribute):
            return self._has_in(ast.unparse(node.value), 0, node.attr)
        return False

    def _imports(self, name: str) -> bool:
        return any(
            self._has_in(node.module or "", node.level, name if item.name == "*" else item.name)
            for node in self.statements
            if isinstance(node, ast.ImportFrom)
            for item in node.names
            if item.name == "*" or (item.asname or item.name) == name
        )

    def _has_in(self, module: str, level: int, name: str) -> bool:
        """Whether another module has the service; `level` counts the dots before its name."""
        other = self._other(module, level)
        return other is not None and other.has(name)

    def _other(self, module: str, level: int) -> _Module | None:
        """Returns another module of the working directory."""
        folder = self.path if level else self.working_dir
        for _ in range(level):
            folder = os.path.dirname(folder)
        source = source_of(module, folder)
        if source is None or self.depth >= _MAX_IMPORT_DEPTH:
            return None
        return _Module(source, self.working_dir, self.depth + 1)


def _is_of_bentoml(module: str) -> bool:
    return module.partition(".")[0] == "bentoml"


@functools.cache  # a module is imported by many
def _statements(path: str) -> list[ast.stmt]:
    """Returns the statements at the top of a module; none of one that cannot be parsed."""
    try:
        with open(path, "rb") as file:
            body = ast.parse(file.read()).body
    except (OSError, SyntaxError, ValueError):
        return []
    return [node for statement in body for node in _at_top(statement)]


def _at_top(node: ast.stmt) -> list[ast.stmt]:
    """Returns a statement of a module, or the statements in its branches."""
    if isinstance(node, ast.If):
        return [n for s in (*node.body, *node.orelse) for n in _at_top(s)]
    if isinstance(node, ast.Try):
        handled = [s for handler in node.handlers for s in handler.body]
        parts = (*node.body, *handled, *node.orelse, *node.finalbody)
        return [n for s in parts for n in _at_top(s)]
    if isinstance(node, ast.With):
        return [n for s in node.body for n in _at_top(s)]
    return [node]
