"""Merges several trees into one, and makes their values independent of their files. Pure."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from servd.config.tree import Node, Path, UntypedText, dotted, graft, map_scalars
from servd.core.diagnostics import Diagnostic

PATH_KEYS = frozenset({
    ("daemon", "runtime_dir"), ("daemon", "log", "file"), ("admin", "token_file"),
    ("services", "directory"), ("services", "env_file"), ("services", "env_file", "path"),
    ("services", "log", "file"), ("services", "tls", "certfile"),
    ("services", "tls", "keyfile"), ("services", "tls", "ca_certs"),
})  # fmt: skip
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
    `folder_of` maps a place's `file` to it; it is also the default of a service's `directory`.
    Numbers of an `env` table become the text that the file has.
    """

    def change(path: Path, node: Node) -> Node:
        if type(node.value) in (int, float) and _pattern(path)[:2] == ("services", "env"):
            return replace(node, value=node.written or str(node.value))  # 3.10 is no 3.1
        if not isinstance(node.value, str) or not node.value:
            return node
        key = _pattern(path)
        folder = folder_of(node.place.file)
        if key in (("services", "listen"), ("admin", "listen")):
            return _anchored(node, "unix:", folder)
        a_program = key == ("services", "python") or path[::2] == ("hooks", "command")
        is_path = (
            key in PATH_KEYS
            or (key == ("services", "app") and is_file_target(node.value))
            or (a_program and path[-1] in ("python", 0) and "/" in node.value)
        )
        return _anchored(node, "", folder) if is_path else node

    return _with_directories(map_scalars(root, change), folder_of)


def is_file_target(app: str) -> bool:
    """Returns whether an app is "path/file.py:app" rather than "module:app"."""
    return app.rpartition(":")[0].endswith(".py")


def _pattern(path: Path) -> tuple[str, ...]:
    """Returns the path without names and indices: `services.web.listen[0]` is `services.listen`."""
    keys = [step for step in path if isinstance(step, str)]
    if keys[0] == "services":
        return ("services", *keys[4 if keys[2:3] == ["components"] else 2 :])
    return ("services", *keys[1:]) if keys[0] == "defaults" else tuple(keys)


def _anchored(node: Node, prefix: str, folder: str) -> Node:
    text = str(node.value)
    path = text.removeprefix(prefix)
    if not text.startswith(prefix) or not path:
        return node
    text = prefix + os.path.normpath(os.path.join(folder, path))
    return replace(node, value=UntypedText(text) if isinstance(node.value, UntypedText) else text)


def _with_directories(root: Node, folder_of: Callable[[str], str]) -> Node:
    services, shared = root.table.get("services"), root.table.get("defaults")
    if services is None or not isinstance(services.value, dict):
        return root
    if shared is not None and "directory" in shared.table:
        return root
    entries = {
        name: graft(node, {"directory": replace(node, value=folder_of(node.key_place.file))})
        if isinstance(node.value, dict) and "directory" not in node.table
        else node
        for name, node in services.table.items()
    }
    return graft(root, {"services": replace(services, value=entries)})
