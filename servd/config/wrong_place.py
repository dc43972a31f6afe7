"""Finds the right table for a key in the wrong table."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel

from servd.config.model import AdminConfig, Config, DaemonConfig
from servd.config.model_paths import model_in
from servd.config.scalars import joined
from servd.config.service import Service
from servd.config.tree import Node, Path, dotted

_RUNNERS = ("app", "command", "bento", "external")


def right_place(path: Path, node: Node) -> str:
    """Returns a hint for the unknown key at the end of `path`, or ""."""
    word = str(path[-1])
    if len(path) == 1 and node.table.keys() & set(_RUNNERS):
        return f"write [services.{word}]"
    if len(path) == 1 and isinstance(node.value, str) and word in _RUNNERS:
        return f"{word} is a key of a service: write it in [services.NAME]"
    if len(path) > 1 and word in Config.model_fields:
        return f"{word} is a top-level table: [{word}]"
    own = Service if path[0] in ("services", "defaults") else None
    if own is not None and (homes := list(_homes(own, word))):
        return (
            f"{word} is a key of {joined(dotted(home) or 'the service itself' for home in homes)}"
        )
    places = [
        f"{name}.{dotted(home)}" if home else name
        for model, name in ((DaemonConfig, "daemon"), (AdminConfig, "admin"))
        for home in _homes(model, word)
        if path[0] != "daemon" or name == "daemon"
    ]
    if path[0] not in ("daemon", "admin") or not places:
        places += [f"{dotted(home)} of a service" if home else "a service"
                   for home in _homes(Service, word)]  # fmt: skip
    return f"{word} is a key of {joined(places)}" if places else ""


def _homes(model: type[BaseModel], word: str, path: Path = ()) -> Iterator[Path]:
    """Yields the paths of the tables, from `model` on, that have the key `word`."""
    if word in model.model_fields:
        yield path
    for name, field in model.model_fields.items():
        inner = model_in(field.annotation)
        if inner is not None and inner is not model:
            yield from _homes(inner, word, (*path, name))
