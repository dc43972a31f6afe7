"""Reads what a module defines from its source, without running it."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

MAX_SOURCE_BYTES = 4 * 2**20
"""Largest source that is read."""

_DYNAMIC = frozenset({
    "__dict__", "__getattr__", "__class__", "exec", "eval", "globals", "locals", "modules",
    "setattr", "vars", "f_globals", "import_module",
})  # fmt: skip
"""Names in the source of a module that may define more than its statements say."""


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
    with open(path, "rb") as file:
        content = file.read(MAX_SOURCE_BYTES + 1)
    if len(content) > MAX_SOURCE_BYTES:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse(content, path)
            compile(tree, path, "exec", dont_inherit=True)  # a `return` outside a function
            nodes = list(ast.walk(tree))
        except (RecursionError, MemoryError):
            return None
    used = {each for node in nodes for each in _words(node)}
    in_functions = {name for node in nodes if isinstance(node, ast.Global) for name in node.names}
    names = in_functions.union(*map(_bound, _at_module_level(tree)))
    return ModuleSource(tuple(tree.body), frozenset(names), used.isdisjoint({*_DYNAMIC, "*"}))


def _words(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, ast.Attribute):
        yield node.attr
    elif isinstance(node, ast.alias | ast.FunctionDef | ast.AsyncFunctionDef):
        yield node.name


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
