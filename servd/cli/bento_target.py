"""Detects whether a target of `servd serve` is a BentoML service, from its source alone."""

from __future__ import annotations

import ast
import os
from collections.abc import Mapping

_FOLDER_FILES = ("bentofile.yaml", "bento.yaml", "service.py")
_MAX_IMPORT_DEPTH = 5


def is_bento(target: str, working_dir: str, environ: Mapping[str, str]) -> bool:
    """Whether `target` is the import string of a class with `@bentoml.service`, a folder with such
    a service, or a Bento in BentoML's store. The module's source decides; its imports are followed
    within the working directory. (A worker refuses to run an undetected service as an app.)
    """
    folder = os.path.join(working_dir, os.path.expanduser(target))
    if os.path.isdir(folder):
        return any(os.path.exists(os.path.join(folder, name)) for name in _FOLDER_FILES)
    module, _, attribute = target.partition(":")
    source = source_of(module, working_dir)
    if source is not None:
        return _Module(source, working_dir).has(attribute.partition(".")[0])
    home = environ.get("BENTOML_HOME") or os.path.expanduser("~/bentoml")
    return os.path.exists(os.path.join(home, "bentos", module, attribute or "latest"))


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
        try:
            with open(path, "rb") as file:
                body = ast.parse(file.read()).body
        except (OSError, SyntaxError, ValueError):
            body = []
        self.statements = [node for statement in body for node in _at_top(statement)]
        self.modules: set[str] = set()
        self.decorators: set[str] = set()
        for node in self.statements:
            if isinstance(node, ast.Import):
                self.modules |= {n.asname or n.name for n in node.names if n.name == "bentoml"}
            elif isinstance(node, ast.ImportFrom) and node.module == "bentoml":
                self.decorators |= {n.asname or n.name for n in node.names if n.name == "service"}

    def has(self, name: str) -> bool:
        """Whether `name` is a service; with an empty name, whether there is any."""
        for node in self.statements:
            if isinstance(node, ast.ClassDef):
                if name in ("", node.name) and any(map(self._makes, node.decorator_list)):
                    return True
            elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                named = any(isinstance(to, ast.Name) and to.id == name for to in targets)
                if name and named and (self._makes(node.value) or self._is(node.value, name)):
                    return True
        if not name:
            return False
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
        """Whether the expression is `bentoml.service`, or a call of it."""
        while isinstance(node, ast.Call):
            node = node.func
        if isinstance(node, ast.Attribute):
            value = node.value
            is_module = isinstance(value, ast.Name) and value.id in self.modules
            return is_module and node.attr == "service"
        return isinstance(node, ast.Name) and node.id in self.decorators

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
        folder = self.path if level else self.working_dir
        for _ in range(level):
            folder = os.path.dirname(folder)
        source = source_of(module, folder)
        if source is None or self.depth >= _MAX_IMPORT_DEPTH:
            return False
        return _Module(source, self.working_dir, self.depth + 1).has(name)


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
