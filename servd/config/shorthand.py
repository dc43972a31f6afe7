"""Expands short spellings of values, and keeps the places of what was written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from servd.config.tree import Node

_Way = Callable[[Node], Node]

_POLICIES = {"unless-stopped": "always", "no": "never", "false": "never", "true": "always"}
"""Words of Compose. A manually stopped service stays stopped with every policy of servd."""


def written_out(root: Node) -> Node:
    """Returns the tree with `restart = "never"` as a table, and octal numbers as file modes."""
    return _with(root, {"defaults": _service, "services": lambda node: _each(node, _service)})


def _service(node: Node) -> Node:
    ways = {"restart": _restart, "umask": _mode, "socket": _socket}
    return _with(node, {**ways, "components": lambda inner: _each(inner, _service)})


def _with(node: Node, ways: Mapping[str, _Way]) -> Node:
    """Returns the table with the values of the keys of `ways` changed."""
    if not isinstance(node.value, dict):
        return node
    entries = {key: ways.get(key, _as_it_is)(entry) for key, entry in node.table.items()}
    return replace(node, value=entries)


def _as_it_is(node: Node) -> Node:
    return node


def _each(node: Node, way: _Way) -> Node:
    return _with(node, dict.fromkeys(node.table, way))


def _socket(node: Node) -> Node:
    return _with(node, {"mode": _mode})


def _restart(node: Node) -> Node:
    if not isinstance(node.value, str | bool):
        return node
    word = str(node.value).lower()
    policy = replace(node, value=_POLICIES.get(word, node.value), references=())
    return replace(node, value={"policy": policy})


def _mode(node: Node) -> Node:
    is_octal = isinstance(node.value, int) and node.written.startswith("0o")
    return replace(node, value=node.written) if is_octal else node
