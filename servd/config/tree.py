"""A parsed file as a tree of values with their places."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from servd.core.diagnostics import Diagnostic, Place
from servd.core.quick_dataclass import dataclass

Path = tuple[str | int, ...]
"""Path from the root to a node: keys of tables and indices of lists."""


class UntypedText(str):
    """Text of the environment or an interpolation: the key decides its type."""

    __slots__ = ()


class Reference(NamedTuple):
    """A reference in a string, such as `${VAR}`, and the text that took its place."""

    written: str
    text: str


@dataclass(frozen=True, slots=True)
class Node:
    """A value with its place and the place of its key (or its own). `secret` values are not shown.
    `written` is a number as in the file, `references` are those that the value contained.
    """

    value: str | int | float | bool | dict[str, Node] | tuple[Node, ...] | None
    place: Place
    key_place: Place
    secret: bool = False
    written: str = ""
    references: tuple[Reference, ...] = ()

    @property
    def table(self) -> dict[str, Node]:
        """The entries of a table; empty for other values."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def items(self) -> tuple[Node, ...]:
        """The items of a list; empty for other values."""
        return self.value if isinstance(self.value, tuple) else ()


@dataclass(frozen=True, slots=True)
class Parsed:
    """The result of parsing. `damaged`: keys that seem missing may be in an unreadable part."""

    root: Node
    diagnostics: tuple[Diagnostic, ...] = ()
    damaged: bool = False


def empty(file: str) -> Node:
    """Returns the tree of an empty file."""
    place = Place(file, 1, 1)
    return Node({}, place, place)


def too_deep(file: str) -> Diagnostic:
    """Returns the mistake of a file whose nesting exceeds Python's recursion limit."""
    return Diagnostic(Place(file, 1, 1), "nested too deeply", code="syntax")


def defined_twice(name: str, place: Place, first: Place) -> Diagnostic:
    """Returns the mistake of a key that a table already has."""
    message = f'duplicate key "{name}"; first defined at {first}'
    return Diagnostic(place, message, code="duplicate", related=first)


def plain(node: Node) -> Any:
    """Returns the values without places: dicts, tuples and scalars."""
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    if isinstance(node.value, tuple):
        return tuple(plain(child) for child in node.value)
    return node.value


def nearest(root: Node, path: Path) -> tuple[Node, bool]:
    """Returns the node at `path`, or the deepest one on the way; and whether it is at `path`."""
    node = root
    for step in path:
        following = child(node, step)
        if following is None:
            return node, False
        node = following
    return node, True


def child(node: Node, step: str | int) -> Node | None:
    """Returns the entry of a table or the item of a list, or None."""
    if isinstance(step, str):
        return node.table.get(step)
    return node.items[step] if step < len(node.items) else None


def walk(node: Node, path: Path = ()) -> Iterator[tuple[Path, Node]]:
    """Yields every scalar of the tree with its path, in order."""
    waiting = [(path, node)]
    while waiting:
        path, node = waiting.pop()
        value = node.value
        if isinstance(value, dict):
            waiting += reversed([((*path, key), entry) for key, entry in value.items()])
        elif isinstance(value, tuple):
            waiting += reversed([((*path, i), entry) for i, entry in enumerate(value)])
        else:
            yield path, node


def map_scalars(node: Node, change: Callable[[Path, Node], Node], path: Path = ()) -> Node:
    """Returns the tree with `change` applied to every scalar. What stays the same is shared."""
    before = node.value
    if isinstance(before, dict):
        table = {key: map_scalars(each, change, (*path, key)) for key, each in before.items()}
        same = all(map(operator.is_, table.values(), before.values()))
        return node if same else replace(node, value=table)
    if isinstance(before, tuple):
        items = tuple(map_scalars(each, change, (*path, i)) for i, each in enumerate(before))
        return node if all(map(operator.is_, items, before)) else replace(node, value=items)
    return change(path, node)


def dotted(path: Path) -> str:
    """Returns a path as messages write it: `services.web.listen[0]`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def differing_paths(old: Any, new: Any, path: Path = ()) -> list[Path]:
    """Returns the paths at which two plain values differ, down to the deepest tables, in order."""
    if old == new:
        return []
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return [
            found
            for key in dict.fromkeys((*old, *new))
            for found in differing_paths(old.get(key), new.get(key), (*path, key))
        ]
    return [path]


def graft(node: Node, entries: Mapping[str, Node]) -> Node:
    """Returns the table with `entries` added."""
    return replace(node, value={**node.table, **entries})
