"""Whether a target of `servd serve` is a BentoML service: told from its source, never run."""

from __future__ import annotations

import ast
import os
from collections.abc import Mapping

_FOLDER_FILES = ("bentofile.yaml", "bento.yaml", "service.py")


def is_bento(target: str, working_dir: str, environ: Mapping[str, str]) -> bool:
    """Whether `target` is the import string of a class with `@bentoml.service`, a folder with such
    a service, or a Bento in BentoML's store.

    Of an import string, the module's own source decides; what it imports from elsewhere is followed
    through modules of the working directory.
    """
    where = os.path.join(working_dir, os.path.expanduser(target))
    if os.path.isdir(where):
        return any(os.path.exists(os.path.join(where, name)) for name in _FOLDER_FILES)
    module, _, attribute = target.partition(":")
    source = _source_of(module, working_dir)
    if source is not None:
        return _is_service(source, attribute.partition(".")[0], working_dir, 0)
    home = environ.get("BENTOML_HOME") or os.path.expanduser("~/bentoml")
    return os.path.exists(os.path.join(home, "bentos", module, attribute or "latest"))


def _source_of(module: str, folder: str) -> str | None:
    """The file of a module, or of a path of one."""
    stem = os.path.join(folder, module.replace(".", os.sep))
    for path in (os.path.join(folder, module), f"{stem}.py", os.path.join(stem, "__init__.py")):
        if path.endswith(".py") and os.path.isfile(path):
            return path
    return None


_DEEPEST = 5


def _is_service(path: str, attribute: str, working_dir: str, depth: int) -> bool:
    """Whether `attribute` of the file is such a class; without an attribute, whether any is."""
    try:
        with open(path, "rb") as file:
            text = file.read()
        tree = ast.parse(text)
    except (OSError, SyntaxError, ValueError):
        return False
    if b"bentoml" in text:
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and any(map(_decorates, node.decorator_list)):
                if attribute in ("", node.name):
                    return True
            elif (
                isinstance(node, ast.Assign)
                and _decorates(node.value)
                and any(isinstance(to, ast.Name) and to.id == attribute for to in node.targets)
            ):
                return True  # MyService = bentoml.service(...)(Inner)
    if attribute and depth < _DEEPEST:
        for node in tree.body:
            if not isinstance(node, ast.ImportFrom):
                continue
            for name in node.names:
                if (name.asname or name.name) == attribute:
                    folder = os.path.dirname(path) if node.level else working_dir
                    source = _source_of(node.module or "", folder)
                    if source is not None:
                        return _is_service(source, name.name, working_dir, depth + 1)
    return False


def _decorates(node: ast.expr) -> bool:
    """Whether it is `bentoml.service`, or what that makes."""
    while isinstance(node, ast.Call):
        node = node.func
    if isinstance(node, ast.Attribute):
        return node.attr == "service" and isinstance(node.value, ast.Name)
    return isinstance(node, ast.Name) and node.id == "service"
