"""Merges several trees into one, and makes relative paths absolute. Pure."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from servd.config.tree import Node, Path, UntypedText, dotted, graft, map_scalars
from servd.core.diagnostics import Diagnostic

PATH_KEYS = frozenset(
    {
        ("daemon", "runtime_dir"),
        ("daemon", "log", "file"),
        ("admin", "token_file"),
        ("services", "directory"),
        ("services", "env_file"),
        ("services", "tls", "certfile"),
        ("services", "tls", "keyfile"),
        ("services", "tls", "ca_certs"),
    }
)
"""Keys that hold a path; those of services also apply to `[defaults]`."""


def merge(roots: list[Node]) -> tuple[Node, list[Diagnostic]]:
    """Returns one tree of several: tables are merged, lists of `hooks` and `include` joined. A
    value or service that two files set is a mistake that names both places.
    """
    found: list[Diagnostic] = []
    result = roots[0]
    for root in roots[1:]:
        result = _merged(result, root, (), found)
    return result, found


def _merged(first: Node, second: Node, path: Path, found: list[Diagnostic]) -> Node:
    entries = dict(first.table)
    for key, node in second.table.items():
        here = (*path, key)
        known = entries.get(key)
        if known is None:
            entries[key] = node
        elif path == ("services",):
            message = f"the service is defined twice; the first is at {known.key_place}"
            found.append(Diagnostic(node.key_place, message, dotted(here), code="duplicate"))
        elif isinstance(known.value, dict) and isinstance(node.value, dict):
            entries[key] = _merged(known, node, here, found)
        elif here in (("hooks",), ("include",)):
            entries[key] = replace(known, value=(*known.items, *node.items))
        elif known.value != node.value:
            message = f"is set twice, and differently; the first is at {known.key_place}"
            found.append(Diagnostic(node.key_place, message, dotted(here), code="duplicate"))
    return replace(first, value=entries)


def anchor(root: Node, folder_of: Callable[[str], str]) -> Node:
    """Returns the tree with absolute paths, relative ones starting from the folder of their file.

    `folder_of` maps the `file` of a place to an absolute folder. A service without `directory` gets
    the folder of its file.
    """

    def change(path: Path, node: Node) -> Node:
        if not isinstance(node.value, str) or not node.value:
            return node
        key = _pattern(path)
        folder = folder_of(node.place.file)
        if key in PATH_KEYS:
            return _with_text(node, os.path.normpath(os.path.join(folder, node.value)))
        if key in (("services", "listen"), ("admin", "listen")):
            return _anchored(node, "unix:", folder)
        if key == ("services", "app") and is_file_target(node.value):
            return _anchored(node, "", folder)
        a_program = key == ("services", "python") or path[::2] == ("hooks", "command")
        if a_program and path[-1] in ("python", 0) and "/" in node.value:
            return _anchored(node, "", folder)
        return node

    root = map_scalars(root, change)
    return _with_directories(root, folder_of)


def is_file_target(app: str) -> bool:
    """Returns whether an app is "path/file.py:app" rather than "module:app"."""
    return app.rpartition(":")[0].endswith(".py")


def _pattern(path: Path) -> tuple[str, ...]:
    """Returns the path without names and indices: `services.web.listen[0]` is `services.listen`."""
    keys = [step for step in path if isinstance(step, str)]
    if keys[0] == "services" and keys[2:3] == ["components"]:
        return ("services", *keys[4:])
    if keys[0] == "services":
        return ("services", *keys[2:])
    return ("services", *keys[1:]) if keys[0] == "defaults" else tuple(keys)


def _anchored(node: Node, prefix: str, folder: str) -> Node:
    text = str(node.value)
    if not text.startswith(prefix):
        return node
    path = text.removeprefix(prefix)
    return _with_text(node, prefix + os.path.normpath(os.path.join(folder, path))) if path else node


def _with_text(node: Node, text: str) -> Node:
    kept = UntypedText(text) if isinstance(node.value, UntypedText) else text
    return replace(node, value=kept)


def _with_directories(root: Node, folder_of: Callable[[str], str]) -> Node:
    services = root.table.get("services")
    if services is None or not isinstance(services.value, dict):
        return root
    shared = root.table.get("defaults")
    if shared is not None and "directory" in shared.table:
        return root
    entries = {
        name: graft(node, {"directory": replace(node, value=folder_of(node.key_place.file))})
        if isinstance(node.value, dict) and "directory" not in node.table
        else node
        for name, node in services.table.items()
    }
    return graft(root, {"services": replace(services, value=entries)})
