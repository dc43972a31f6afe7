"""Parses YAML 1.2 (and so JSON) into a tree with places, by the nodes of ruamel.yaml. Anchors and
aliases work up to a size; custom tags and duplicate keys are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

from servd.config.syntax_hints import yaml_mistake
from servd.config.tree import Node, Parsed, defined_twice, empty, too_deep
from servd.core.diagnostics import Diagnostic, Place

_TAG = "tag:yaml.org,2002:"
_MAX_NODES = 100_000
_MAX_MISTAKES = 20
_TAB = re.compile(r" *\t")
_PAIR = re.compile(r"\s*(- +)?[\w.\"'-]+\s*:\s+\S")


def parse_yaml(text: str, file: str) -> Parsed:
    """Returns the tree of a YAML document, with every distinct syntax mistake."""
    lines = text.split("\n")
    found: list[Diagnostic] = []
    while len(found) < _MAX_MISTAKES:
        try:
            document = YAML(typ="safe", pure=True).compose("\n".join(lines))
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line, column = (mark.line, mark.column) if mark else (0, 0)
            line = min(line, len(lines) - 1)
            problem = (error.problem or error.context or "cannot be parsed").strip()
            mistake = yaml_mistake(lines[line], column + 1, problem)
            place = Place(file, line + 1, mistake.column or column + 1)
            found.append(Diagnostic(place, mistake.message, hint=mistake.hint, code="syntax"))
            if _TAB.match(lines[line]):
                lines = ["" if _TAB.match(each) else each for each in lines]
                continue
            if not _PAIR.match(lines[line]):
                break
            lines[line] = ""
        except (YAMLError, ValueError, RecursionError, AssertionError, AttributeError) as error:
            found.append(_unplaced(error, file))
            break
        else:
            return _built(document, file, found)
    return Parsed(empty(file), tuple(found), damaged=True)


def _unplaced(error: Exception, file: str) -> Diagnostic:
    """Returns the diagnostic of an error that ruamel.yaml reports without a mark."""
    if isinstance(error, RecursionError):
        return too_deep(file)
    place = Place(file, 1, 1) if getattr(error, "position", None) is None else Place(file)
    (first, *_) = str(error).strip().splitlines() or ["cannot be parsed"]
    return Diagnostic(place, f"invalid YAML: {first}", code="syntax")


def _built(document: Any, file: str, found: list[Diagnostic]) -> Parsed:
    damaged = bool(found)
    if document is None:
        return Parsed(empty(file), tuple(found), damaged)
    builder = _Builder(file)
    try:
        root = builder.node(document, None)
    except RecursionError:
        return Parsed(empty(file), (*found, too_deep(file)), damaged=True)
    found += builder.diagnostics
    if not isinstance(root.value, dict):
        found.append(
            Diagnostic(root.place, "expected a table of keys at the top of the file", code="syntax")
        )
        return Parsed(empty(file), tuple(found), damaged=True)
    return Parsed(root, tuple(found), damaged)


class _Builder:
    """Converts the nodes of ruamel.yaml."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.count = 0
        self.inside: set[int] = set()
        self.diagnostics: list[Diagnostic] = []

    def place(self, node: Any) -> Place:
        return Place(self.file, node.start_mark.line + 1, node.start_mark.column + 1)

    def refuse(self, node: Any, message: str) -> None:
        self.diagnostics.append(Diagnostic(self.place(node), message, code="syntax"))

    def node(self, node: Any, key_place: Place | None) -> Node:
        place = self.place(node)
        key_place = key_place or place
        self.count += 1
        if self.count > _MAX_NODES:
            if self.count == _MAX_NODES + 1:
                self.refuse(node, "the document is too large after its aliases are expanded")
            return Node(None, place, key_place)
        if id(node) in self.inside:
            self.refuse(node, "the alias refers to a value that contains it")
            return Node(None, place, key_place)
        self.inside.add(id(node))
        try:
            if isinstance(node, MappingNode):
                return Node(self.entries(node), place, key_place)
            if isinstance(node, SequenceNode):
                return Node(tuple(self.node(item, None) for item in node.value), place, key_place)
            value = self.scalar(node)
            written = "" if isinstance(value, str) else str(node.value)
            return Node(value, place, key_place, written=written)
        finally:
            self.inside.discard(id(node))

    def entries(self, node: MappingNode) -> dict[str, Node]:
        merged: dict[str, Node] = {}
        own: dict[str, Node] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                self.refuse(key, "a key must be text")
            elif key.tag == f"{_TAG}merge" or (key.value == "<<" and key.style is None):
                sources = value.value if isinstance(value, SequenceNode) else [value]
                for source in reversed(sources):
                    merged |= self.node(source, None).table
            elif key.value in own:
                first = own[key.value].key_place
                self.diagnostics.append(defined_twice(key.value, self.place(key), first))
            else:
                own[key.value] = self.node(value, self.place(key))
        return {**merged, **own}

    def scalar(self, node: Any) -> str | int | float | bool | None:
        kind, text = str(node.tag).replace(_TAG, "!!"), str(node.value)
        if kind in _SCALARS:
            try:
                return _SCALARS[kind](text)
            except ValueError:
                return text
        if kind not in ("!!str", "!!timestamp"):
            self.refuse(node, f"the tag {kind} is not supported")
        return text


def _integer(text: str) -> int | str:
    """Reads integers of the core schema: 12, -3, 0o17, 0x1F. `027` is text, such as a umask."""
    if re.fullmatch(r"0[0-9_]+", text):
        return text
    if text.startswith(("0o", "0x")):
        return int(text[2:], 8 if text[1] == "o" else 16)
    return int(text)


_SCALARS: Mapping[str, Callable[[str], str | int | float | bool | None]] = {
    "!!null": lambda text: None,
    "!!bool": lambda text: text.lower() == "true",
    "!!int": _integer,
    "!!float": lambda text: float(text.lower().replace(".inf", "inf").replace(".nan", "nan")),
}
