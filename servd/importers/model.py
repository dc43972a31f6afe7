"""What an import found, as values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Left(NamedTuple):
    """Something that has no counterpart: its text, and its line (0: of no line)."""

    text: str
    line: int = 0


@dataclass(slots=True)
class ImportedService:
    """One service: its keys as a file spells them, and what could not be carried over."""

    name: str
    keys: dict[str, Any] = field(default_factory=dict)
    left: list[Left] = field(default_factory=list)

    def put(self, key: str, value: Any) -> None:
        """Sets a dotted key; None and what is empty is left out."""
        if value in (None, "", [], {}):
            return
        table = self.keys
        *outer, last = key.split(".")
        for step in outer:
            table = table.setdefault(step, {})
        table[last] = value


@dataclass(slots=True)
class Imported:
    """All services of a file, and what of the file itself could not be carried over."""

    services: list[ImportedService] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)


class ImportFailed(Exception):  # noqa: N818  # it is the outcome, in the words of the command
    """The file cannot be read as what it seems to be; the message says why."""


def service_name(text: str, taken: Iterable[str] = ()) -> str:
    """Returns a name of a service that is like `text`, and not `taken`."""
    found = re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-_")[:60]
    found = found if found[:1].isalpha() else f"s-{found}".rstrip("-")
    known, number, name = set(taken), 2, found
    while name in known:
        name, number = f"{found}-{number}", number + 1
    return name


def seconds(value: Any) -> str | None:
    """Returns a number of seconds as a duration; None for what is none."""
    text = str(value).strip()
    return f"{text}s" if re.fullmatch(r"\d+(\.\d+)?", text) else None


def number(value: Any) -> int | None:
    """Returns a whole number; None for what is none."""
    text = str(value).strip()
    return int(text) if re.fullmatch(r"\d+", text) else None


def is_true(value: Any) -> bool:
    """Whether a word of an INI file, or a value of YAML, means yes."""
    return str(value).strip().lower() in ("1", "true", "yes", "on")


def literal(text: str) -> str:
    """Returns a text that stands for itself, with each dollar that servd would read doubled."""
    return text.replace("$", "$$") if "${" in text or "$$" in text else text


def variables(value: Any) -> dict[str, str]:
    """Returns the environment of a table, or of a list of NAME=value."""
    if isinstance(value, Mapping):
        return {str(key): _text(entry) for key, entry in value.items() if entry is not None}
    items = value if isinstance(value, list) else [value] if value else []
    pairs = (str(item).partition("=") for item in items)
    return {name.strip(): entry for name, equals, entry in pairs if equals}


def _text(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
