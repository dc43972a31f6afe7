"""Parses TOML into a tree with places. tomllib decides validity and values; tree-sitter finds the
places; where they disagree, tomllib's value counts, at the place of its table. After a mistake on a
`key = value` line, the rest is parsed again, so that one run reports every mistake.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from servd.config.syntax_hints import toml_mistake
from servd.config.tree import Node, Parsed, defined_twice, empty, too_deep
from servd.core.diagnostics import Diagnostic, Place

if TYPE_CHECKING:
    from tree_sitter import Node as SyntaxNode
    from tree_sitter import Parser

_AT = re.compile(r"(?s)(.*) \(at (?:line (\d+), column (\d+)|end of document)\)")
_TWICE = re.compile(r"Cannot (overwrite|declare|mutate|redefine)")
_PAIR = re.compile(r"\s*[\w.\"'-]+\s*=\s*\S")
_PLAIN_TEXT = re.compile(r'"[^"\\\x00-\x1f]*"')
_PLAIN_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")
_QUOTED = re.compile(r"\"(\\.|[^\"\\])*\"|'[^']*'|#.*")
_MAX_MISTAKES = 50


def parse_toml(text: str, file: str) -> Parsed:
    """Returns the tree of a TOML document, with every distinct syntax mistake."""
    lines = text.split("\n")
    values, found, twice = _read(lines, file)
    if values is None and twice is None:
        return Parsed(empty(file), tuple(found), damaged=True)
    builder = _Builder(file, lines)
    try:
        root = builder.build()
        if values is not None:
            root = _with_values(values, root)
    except RecursionError:
        return Parsed(empty(file), (*found, too_deep(file)), damaged=True)
    duplicates = builder.duplicates or ([twice] if twice is not None else [])
    return Parsed(root, (*found, *duplicates), damaged=bool(found))


def _read(
    lines: list[str], file: str
) -> tuple[dict[str, Any] | None, list[Diagnostic], Diagnostic | None]:
    """Returns values or None, mistakes, and a key defined twice; blanks `lines` with mistakes."""
    found: list[Diagnostic] = []
    while len(found) < _MAX_MISTAKES:
        try:
            return tomllib.loads("\n".join(lines)), found, None
        except tomllib.TOMLDecodeError as error:
            mistake = _diagnostic(error, lines, file)
            if _TWICE.match(str(error)):
                return None, found, mistake
            found.append(mistake)
            at = mistake.place.line - 1
            if "(at end of document)" in str(error) or not _PAIR.match(lines[at]):
                break
            for index in range(at, _end_of(lines, at) + 1):
                lines[index] = ""
        except RecursionError:
            found.append(too_deep(file))
            break
        except ValueError as error:  # an integer of more digits than Python reads
            found.append(Diagnostic(Place(file), f"invalid TOML: {error}", code="syntax"))
            break
    return None, found, None


def _diagnostic(error: tomllib.TOMLDecodeError, lines: list[str], file: str) -> Diagnostic:
    match = _AT.fullmatch(str(error))
    message = match[1] if match else str(error)
    last = max((n for n, line in enumerate(lines, 1) if line.strip()), default=1)
    place = Place(file, last, len(lines[last - 1]) + 1)
    if match and match[2]:
        place = Place(file, int(match[2]), int(match[3]))
    if place.line > len(lines):
        place = Place(file, len(lines), len(lines[-1]) + 1)
    mistake = toml_mistake(lines[place.line - 1], place.column, message)
    place = replace(place, column=mistake.column or place.column)
    return Diagnostic(place, mistake.message, hint=mistake.hint, code="syntax")


def _end_of(lines: list[str], start: int) -> int:
    """Returns the line that closes the braces that `start` opens, or `start`."""
    depth = 0
    for index in range(start, len(lines)):
        text = _QUOTED.sub("", lines[index])
        depth += text.count("{") - text.count("}")
        if depth <= 0 or (index > start and text.lstrip().startswith("[")):
            return index if depth <= 0 else start
    return start


@dataclass(slots=True)
class _Table:
    """A table under construction."""

    place: Place
    key_place: Place
    entries: dict[str, Any] = field(default_factory=dict)
    explicit: bool = False


@dataclass(slots=True)
class _Tables:
    """An array of tables under construction."""

    place: Place
    key_place: Place
    items: list[_Table] = field(default_factory=list)


@cache
def _parser() -> Parser:
    import tree_sitter_toml
    from tree_sitter import Language, Parser

    return Parser(Language(tree_sitter_toml.language()))


class _Builder:
    """Builds tables from the pairs of a syntax tree."""

    def __init__(self, file: str, lines: list[str]) -> None:
        self.file = file
        self.lines = lines
        self.bytes = [b"" if line.isascii() else line.encode() for line in lines]
        self.duplicates: list[Diagnostic] = []

    def build(self) -> Node:
        tree = _parser().parse("\n".join(self.lines).encode())
        top = Place(self.file, 1, 1)
        root = _Table(top, top)
        self.pairs(tree.root_node, root)
        for node in tree.root_node.children:
            if node.type in ("table", "table_array_element"):
                self.section(node, root)
        return _frozen(root)

    def section(self, node: SyntaxNode, root: _Table) -> None:
        keys = self.keys(node.children[1])
        if keys is None:
            return
        target, name, place = self.way(root, keys)
        if node.type == "table_array_element":
            listed = target.entries.setdefault(name, _Tables(place, place))
            if not isinstance(listed, _Tables):
                self.twice(name, place, listed)
                return
            target = _Table(place, place)
            listed.items.append(target)
        else:
            known = target.entries.get(name)
            if known is not None and (not isinstance(known, _Table) or known.explicit):
                self.twice(name, place, known)
            target = self.enter(target, name, place)
            target.explicit = True
        self.pairs(node, target)

    def pairs(self, node: SyntaxNode, table: _Table) -> None:
        for pair in node.children:
            if pair.type == "pair":
                self.pair(pair, table)

    def way(self, table: _Table, keys: list[tuple[str, Place]]) -> tuple[_Table, str, Place]:
        """Returns the table that a dotted key leads to, and the key in it."""
        for name, place in keys[:-1]:
            table = self.enter(table, name, place)
        return table, *keys[-1]

    def enter(self, table: _Table, name: str, place: Place) -> _Table:
        known = table.entries.get(name)
        if isinstance(known, _Tables):
            return known.items[-1]
        if not isinstance(known, _Table):
            known = table.entries[name] = _Table(place, place)
        return known

    def pair(self, node: SyntaxNode, table: _Table) -> None:
        parts = [part for part in node.children if part.type not in ("=", "comment")]
        keys = self.keys(parts[0])
        if keys is None or len(parts) < 2:
            return
        table, name, place = self.way(table, keys)
        if name in table.entries:
            self.twice(name, place, table.entries[name])
        else:
            table.entries[name] = self.value(parts[1], place)

    def twice(self, name: str, place: Place, first: _Table | _Tables | Node) -> None:
        self.duplicates.append(defined_twice(name, place, first.key_place))

    def value(self, node: SyntaxNode, key_place: Place | None = None) -> Any:
        place = self.place(node)
        key_place = key_place or place
        if node.type == "inline_table":
            table = _Table(place, key_place)
            self.pairs(node, table)
            return table
        if node.type == "array":
            items = [item for item in node.children if item.is_named and item.type != "comment"]
            return Node(tuple(_frozen(self.value(item)) for item in items), place, key_place)
        text = (node.text or b"").decode()
        value = _scalar(text)
        return Node(value, place, key_place, written="" if isinstance(value, str) else text)

    def keys(self, node: SyntaxNode) -> list[tuple[str, Place]] | None:
        if node.type == "dotted_key":
            return [
                key for part in node.children if part.type != "." for key in self.keys(part) or ()
            ]
        text = (node.text or b"").decode()
        if node.type == "bare_key":
            return [(text, self.place(node))]
        if node.type == "quoted_key":
            return [(next(iter(tomllib.loads(f"{text} = 0"))), self.place(node))]
        return None

    def place(self, node: SyntaxNode) -> Place:
        row, column = node.start_point
        line = self.bytes[row]
        if line:
            column = len(line[:column].decode(errors="replace"))
        return Place(self.file, row + 1, column + 1)


def _scalar(text: str) -> str | int | float | bool:
    if _PLAIN_TEXT.fullmatch(text):
        return text[1:-1]
    if _PLAIN_NUMBER.fullmatch(text):
        return int(text)
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, str | int | float | bool) else text


def _with_values(value: Any, near: Node) -> Node:
    """Returns `value` as a tree, with the places of `near` where the shapes agree."""
    found: Any = value
    if isinstance(value, dict):
        known = near.table
        found = {key: _with_values(v, known.get(key, near)) for key, v in value.items()}
    elif isinstance(value, list):
        same = len(near.items) == len(value)
        places = near.items if same else [near] * len(value)
        found = tuple(map(_with_values, value, places))
    elif not isinstance(value, str | int | float | bool):
        found = str(value)
    elif type(value) is type(near.value) and value == near.value:
        return near
    return Node(found, near.place, near.key_place, written=near.written)


def _frozen(value: Any) -> Node:
    if isinstance(value, _Table):
        entries = {name: _frozen(entry) for name, entry in value.entries.items()}
        return Node(entries, value.place, value.key_place)
    if isinstance(value, _Tables):
        return Node(tuple(_frozen(item) for item in value.items), value.place, value.key_place)
    assert isinstance(value, Node)
    return value
