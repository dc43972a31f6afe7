"""A parsed file as a tree in which every key and value knows its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from servd.core.diagnostics import Diagnostic, Place

Path = tuple[str | int, ...]
"""The way to a node from the root: keys of tables and indices of lists."""


class UntypedText(str):
    """Text that came from the environment or an interpolation.

    It has no type of its own: where a number or a boolean is wanted, it is read as one.
    """

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Node:
    """A value with its place, and the place of the key that names it (its own, without a key).

    Tables are dicts of nodes, lists are tuples of nodes. `secret` values are never shown.
    """

    value: str | int | float | bool | dict[str, Node] | tuple[Node, ...] | None
    place: Place
    key_place: Place
    secret: bool = False

    @property
    def table(self) -> dict[str, Node]:
        """The entries of a table; empty for anything else."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def items(self) -> tuple[Node, ...]:
        """The items of a list; empty for anything else."""
        return self.value if isinstance(self.value, tuple) else ()


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a parser made of a file.

    `damaged` says that a mistake of syntax hid part of it, so that what seems to be missing may
    only have been unreadable.
    """

    root: Node
    diagnostics: tuple[Diagnostic, ...] = ()
    damaged: bool = False


def empty(file: str) -> Node:
    """The tree of a file with nothing in it."""
    place = Place(file, 1, 1)
    return Node({}, place, place)


def plain(node: Node) -> Any:
    """The values alone: dicts, tuples and scalars."""
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    if isinstance(node.value, tuple):
        return tuple(plain(child) for child in node.value)
    return node.value


def nearest(root: Node, path: Path) -> tuple[Node, bool]:
    """The node at `path`, or the deepest one on the way there; and whether it is the one."""
    node = root
    for step in path:
        following = child(node, step)
        if following is None:
            return node, False
        node = following
    return node, True


def child(node: Node, step: str | int) -> Node | None:
    """The entry of a table or the item of a list, if it is there."""
    if isinstance(step, str):
        return node.table.get(step)
    return node.items[step] if step < len(node.items) else None


def walk(node: Node, path: Path = ()) -> Iterator[tuple[Path, Node]]:
    """Every scalar of the tree with its path."""
    if isinstance(node.value, dict):
        for key, entry in node.value.items():
            yield from walk(entry, (*path, key))
    elif isinstance(node.value, tuple):
        for index, item in enumerate(node.value):
            yield from walk(item, (*path, index))
    else:
        yield path, node


def map_scalars(node: Node, change: Callable[[Path, Node], Node], path: Path = ()) -> Node:
    """The tree with every scalar replaced by what `change` makes of it."""
    if isinstance(node.value, dict):
        entries = {
            key: map_scalars(entry, change, (*path, key)) for key, entry in node.value.items()
        }
        return replace(node, value=entries)
    if isinstance(node.value, tuple):
        listed = tuple(
            map_scalars(item, change, (*path, index)) for index, item in enumerate(node.value)
        )
        return replace(node, value=listed)
    return change(path, node)


def dotted(path: Path) -> str:
    """`services.web.listen[0]`, as messages write it."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def differing_paths(old: Any, new: Any, path: Path = ()) -> list[Path]:
    """Where two plain values differ: the paths of the deepest tables' entries, in their order."""
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
    """The table with `entries` put in."""
    return replace(node, value={**node.table, **entries})
