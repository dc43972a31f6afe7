"""Reads what a module defines from its source, without running it."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator

from servd.core.quick_dataclass import dataclass
from servd.core.regular_file import open_regular

MAX_SOURCE_BYTES = 4 * 2**20
"""Largest source that is read."""

_MAY_DEFINE_MORE = re.compile(
    rb"\b(__dict__|__getattr__|__class__|exec|eval|globals|locals|modules|setattr|vars|f_globals"
    rb"|import_module)\b|\bimport\s*\(?\s*\*"
)
"""Words in the source of a module that may define more than its statements say."""

_GLOBAL = re.compile(r"\bglobal\s+(.*)")


@dataclass(frozen=True, slots=True)
class ModuleSource:
    """`body` are the module's statements, `names` what they define at module level. Unless
    `is_whole`, the module may define more.
    """

    body: tuple[ast.stmt, ...]
    names: frozenset[str]
    is_whole: bool


def read_module(path: str) -> ModuleSource | None:
    """Reads a source file; None if it is too large or too deep. Raises OSError, SyntaxError, and
    ValueError for a null byte.
    """
    with open_regular(path) as file:
        content = file.read(MAX_SOURCE_BYTES + 1)
    if len(content) > MAX_SOURCE_BYTES:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse(content, path)
            compile(tree, path, "exec", dont_inherit=True)  # a `return` outside a function
            names = set[str]().union(*map(_bound, _at_module_level(tree)))
        except (RecursionError, MemoryError):
            return None
    for found in _GLOBAL.findall(content.decode(errors="replace")):
        names |= set(re.findall(r"\w+", found))
    return ModuleSource(tuple(tree.body), frozenset(names), not _MAY_DEFINE_MORE.search(content))


def _at_module_level(node: ast.AST) -> Iterator[ast.AST]:
    """Walks all nodes except those inside functions and classes, which have names of their own."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(
            child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
        ):
            yield from _at_module_level(child)


def _bound(node: ast.AST) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return {node.id}
    if isinstance(node, ast.alias):
        return {node.asname or node.name.partition(".")[0]}
    if isinstance(node, ast.MatchAs | ast.MatchStar) and node.name:
        return {node.name}
    if isinstance(node, ast.MatchMapping) and node.rest:
        return {node.rest}
    return set()
