"""Merges several trees into one, and makes their values independent of their files. Pure."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache

from servd.config.tree import Node, Path, UntypedText, dotted, graft, map_scalars, walk
from servd.core.diagnostics import Diagnostic

PATH_KEYS = frozenset({
    ("daemon", "runtime_dir"), ("daemon", "log", "file"), ("admin", "token_file"),
    ("services", "directory"), ("services", "env_file"), ("services", "env_file", "path"),
    ("services", "log", "file"), ("services", "inputs"), ("services", "tls", "certfile"),
    ("services", "warmup", "request"), ("services", "health", "request"),
    ("services", "tls", "keyfile"), ("services", "tls", "ca_certs"),
})  # fmt: skip
"""Keys whose value is a path; those of services also apply to `[defaults]`."""

_ADDRESS_KEYS = (
    ("services", "listen"), ("services", "health", "tcp"), ("admin", "listen"),
    ("admin", "metrics"),
)  # fmt: skip
"""Keys whose value can be the path of a unix socket."""

_FILE_REFERENCE = re.compile(r"\$\{file:([^{}]+)\}")


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
            message = f"duplicate service; first defined at {known.key_place}"
            found.append(Diagnostic(node.key_place, message, dotted(here), code="duplicate"))
        elif isinstance(known.value, dict) and isinstance(node.value, dict):
            entries[key] = _merged(known, node, here, found)
        elif here in (("hooks",), ("include",)):
            entries[key] = replace(known, value=(*known.items, *node.items))
        elif known.value != node.value:
            message = f"conflicts with the value at {known.key_place}"
            found.append(Diagnostic(node.key_place, message, dotted(here), code="duplicate"))
    return replace(first, value=entries)


def anchor(root: Node, folder_of: Callable[[str], str]) -> Node:
    """Returns the tree with absolute paths, relative ones starting from the folder of their file.
    `folder_of` maps a place's `file` to it; it is also the default of a service's `directory`.
    Numbers of an `env` table become the text that the file has.
    """

    def anchored(path: Path, node: Node) -> Node:
        if type(node.value) in (int, float) and _pattern(path)[:2] == ("services", "env"):
            return replace(node, value=node.written or str(node.value))  # 3.10 is not 3.1
        return _with_path_moved(path, node, absolute)

    def absolute(file: str, path: str) -> str:
        return os.path.normpath(os.path.join(folder_of(file), path))

    folder_of = cache(folder_of)
    return _with_directories(map_scalars(root, anchored), folder_of)


def rebase(root: Node, folder_of: Callable[[str], str], target: str) -> Node:
    """Returns the tree as written, for a file in the folder `target`: relative paths lead to the
    same files as before. Paths that begin with a variable are unchanged.
    """

    def moved(file: str, path: str) -> str:
        if os.path.isabs(path) or path.startswith("$"):
            return path
        found = os.path.relpath(os.path.join(folder_of(file), path), target)
        return f"./{found}" if path.startswith("./") and not found.startswith("..") else found

    def references(path: Path, node: Node) -> Node:
        if not isinstance(node.value, str):
            return node
        if path[:1] == ("include",):
            return replace(node, value=moved(node.place.file, node.value))
        text = _FILE_REFERENCE.sub(
            lambda found: f"${{file:{moved(node.place.file, found[1])}}}", node.value
        )
        return node if text == node.value else replace(node, value=text)

    def relative(file: str) -> str:
        return os.path.relpath(folder_of(file), target)

    found = map_paths(map_scalars(root, references), moved)
    files = {node.place.file for _, node in walk(found)}
    stays = all(relative(file) == "." for file in files)
    return found if stays else _with_directories(found, relative)


def map_paths(root: Node, move: Callable[[str, str], str]) -> Node:
    """Returns the tree with each path changed by `move`, given the file that contains it."""
    return map_scalars(root, lambda path, node: _with_path_moved(path, node, move))


def _with_path_moved(path: Path, node: Node, move: Callable[[str, str], str]) -> Node:
    if not isinstance(node.value, str) or not node.value:
        return node
    text = _moved(path, node.value, lambda each: move(node.place.file, each))
    if text == node.value:
        return node
    return replace(node, value=UntypedText(text) if type(node.value) is UntypedText else text)


def _moved(path: Path, text: str, move: Callable[[str], str]) -> str:
    """Returns the value at `path` with the path in it, if there is one, moved."""
    key = _pattern(path)
    if key in _ADDRESS_KEYS:
        socket = text.removeprefix("unix:")
        return f"unix:{move(socket)}" if socket != text and socket else text
    if key == ("services", "app") and is_file_target(text):
        file, _, attribute = text.rpartition(":")
        return f"{move(file)}:{attribute}"
    if path[::2] == ("hooks", "command"):
        program, blank, rest = (text, "", "") if path[3:] else text.partition(" ")
        is_path = path[3:] in ((), (0,)) and "/" in program
        return f"{move(program)}{blank}{rest}" if is_path else text
    is_path = key in PATH_KEYS or (key == ("services", "python") and "/" in text)
    return move(text) if is_path else text


def is_file_target(app: str) -> bool:
    """Returns whether an app is "path/file.py:app" rather than "module:app"."""
    return app.rpartition(":")[0].endswith(".py")


def _pattern(path: Path) -> tuple[str, ...]:
    """Returns the path without names and indices: `services.web.listen[0]` is `services.listen`."""
    keys = [step for step in path if isinstance(step, str)]
    if keys[0] == "services":
        return ("services", *keys[4 if keys[2:3] == ["components"] else 2 :])
    return ("services", *keys[1:]) if keys[0] == "defaults" else tuple(keys)


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
