"""Detects the format of other tools' files, and writes the result as a servd file."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import tomli_w

from servd.config.find import Source
from servd.config.load import parse_source
from servd.config.tree import Node, plain
from servd.importers.circus_ini import read_circus
from servd.importers.compose import read_compose, read_process_compose
from servd.importers.gunicorn_conf import read_gunicorn
from servd.importers.model import Imported, ImportedService, ImportFailed, Left
from servd.importers.pm2 import read_pm2
from servd.importers.procfile import read_procfile
from servd.importers.supervisord import read_supervisord
from servd.importers.systemd_unit import read_unit

KINDS = (
    "procfile", "supervisord", "gunicorn", "circus", "systemd", "pm2", "compose",
    "process-compose",
)  # fmt: skip


_SIGNS = (
    (r"^\[(program|supervisord)", "supervisord"), (r"^\[(watcher:|circus\])", "circus"),
    (r"^\[Service\]", "systemd"), (r"^[A-Za-z0-9_-]+:\s*\S", "procfile"),
)  # fmt: skip


def kind_of(file: str, text: str) -> str:
    """Returns the format of a file by its name and content. Raises `ImportFailed`."""
    name = os.path.basename(file).lower()
    if name.startswith("procfile"):
        return "procfile"
    if name.endswith(".service"):
        return "systemd"
    if name.endswith(".py"):
        return "gunicorn"
    if name.endswith((".js", ".cjs")) or (name.endswith(".json") and '"apps"' in text):
        return "pm2"
    if name.endswith((".yaml", ".yml", ".json")):
        return (
            "process-compose" if re.search(r"^\W*processes\W*:", text, re.MULTILINE) else "compose"
        )
    for sign, kind in _SIGNS:
        if re.search(sign, text, re.MULTILINE):
            return kind
    raise ImportFailed(f"unknown format: use --from with one of {', '.join(KINDS)}")


def read(kind: str, file: str, text: str) -> Imported:
    """Returns the content of a file. Raises `ImportFailed`."""
    if kind == "pm2":
        return read_pm2(text, file)
    if kind == "systemd":
        return read_unit(text, file)
    if kind in ("compose", "process-compose"):
        tables, line = _yaml(text)
        return (read_compose if kind == "compose" else read_process_compose)(tables, line)
    return {
        "procfile": read_procfile, "supervisord": read_supervisord, "gunicorn": read_gunicorn,
        "circus": read_circus,
    }[kind](text)  # fmt: skip


def _yaml(text: str) -> tuple[Mapping[str, Any], Any]:
    """Returns the values of a YAML file, and a function for the line of a service's key."""
    parsed = parse_source(Source("import.yaml", text.encode()), {})
    if parsed.diagnostics:
        first = parsed.diagnostics[0]
        raise ImportFailed(f"line {first.place.line}: {first.message}")

    def line(name: str, key: str) -> int:
        for top in ("services", "processes"):
            node = parsed.root.table.get(top, Node(None, first_place, first_place)).table.get(name)
            if node is not None:
                return node.table[key].key_place.line if key in node.table else node.key_place.line
        return 0

    first_place = parsed.root.place
    values = plain(parsed.root)
    return _lists(values), line


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(entry) for key, entry in value.items()}
    return [_lists(item) for item in value] if isinstance(value, list | tuple) else value


def as_toml(found: Imported, file: str) -> str:
    """Returns the servd file; settings without a counterpart become comments of their service."""
    name = os.path.basename(file)
    lines = [f"# Imported from {name} by `servd import`. Review it before use."]
    lines += _comments(found.left, name)
    for service in found.services:
        lines += ["", *_service(service, name)]
    return "\n".join(lines) + "\n"


_FIRST = ("app", "factory", "command", "kind", "listen", "workers", "directory", "depends_on")
"""Keys to write first."""


def _service(service: ImportedService, file: str) -> list[str]:
    lines = [f"[services.{service.name}]"]
    first = [key for key in _FIRST if key in service.keys]
    for key in dict.fromkeys([*first, *service.keys]):
        lines += _pairs(key, service.keys[key])
    return [*lines, *_comments(service.left, file)]


def _pairs(key: str, value: Any) -> list[str]:
    """Formats a key; tables get one line per key, to keep lines short."""
    if isinstance(value, dict) and key not in ("health",):
        return [
            line for name, entry in value.items() for line in _pairs(f"{key}.{_bare(name)}", entry)
        ]
    return [f"{key} = {_inline(value)}"]


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return (
            f"{{ {', '.join(f'{_bare(key)} = {_inline(entry)}' for key, entry in value.items())} }}"
        )
    if isinstance(value, list):
        return f"[{', '.join(map(_inline, value))}]"
    return tomli_w.dumps({"v": value}).partition(" = ")[2].strip()


def _bare(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _inline(key)


def _comments(left: list[Left], file: str) -> list[str]:
    return [
        f"# not imported: {' '.join(item.text.split())}"
        + (f"  ({file}:{item.line})" if item.line else "")
        for item in left
    ]
