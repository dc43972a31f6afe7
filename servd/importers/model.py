"""The result of an import, as values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from servd.config.scalars import parse_duration
from servd.config.worker_tables import Restart


class Left(NamedTuple):
    """A setting without a counterpart: its text, and its line (0: unknown)."""

    text: str
    line: int = 0


class Keys:
    """A table whose keys are read once each; the unread ones have no counterpart."""

    def __init__(self, table: Mapping[str, Any]) -> None:
        self._table = table
        self._read: set[str] = set()
        self._inner: dict[str, Keys] = {}

    def get(self, key: str, default: Any = None) -> Any:
        """Reads a key."""
        self._read.add(key)
        return self._table.get(key, default)

    def peek(self, key: str, default: Any = None) -> Any:
        """Returns a value whose key stays unread."""
        return self._table.get(key, default)

    def table(self, key: str) -> Keys:
        """Returns the table at a key, whose own keys are read one by one."""
        if not isinstance(self._table.get(key), Mapping):
            return Keys({})
        return self._inner.setdefault(key, Keys(self._table[key]))

    def ignore(self) -> None:
        """Reads every key."""
        self._read.update(self._table)

    def unread(self) -> Iterator[tuple[str, Any]]:
        """Yields the dotted keys that were not read, with their values."""
        for key, value in self._table.items():
            if key in self._inner:
                yield from ((f"{key}.{name}", each) for name, each in self._inner[key].unread())
            elif key not in self._read:
                yield str(key), value


@dataclass(slots=True)
class ImportedService:
    """One service: its keys as in a servd file, and the settings that were not imported."""

    name: str
    keys: dict[str, Any] = field(default_factory=dict)
    left: list[Left] = field(default_factory=list)

    def get(self, key: str) -> Any:
        """Returns the value of a dotted key, or None."""
        value: Any = self.keys
        for step in key.split("."):
            value = value.get(step) if isinstance(value, dict) else None
        return value

    def put_backoff(self, text: str | None) -> None:
        """Sets the pause before restarts, which may be longer than servd's longest one."""
        self.put("restart.backoff", text)
        if text and parse_duration(text) > Restart().backoff_max:
            self.put("restart.backoff_max", text)

    def put(self, key: str, value: Any) -> None:
        """Sets a dotted key, unless the value is None or empty."""
        if value in (None, "", [], {}):
            return
        table = self.keys
        *outer, last = key.split(".")
        for step in outer:
            table = table.setdefault(step, {})
        table[last] = value


@dataclass(slots=True)
class Imported:
    """All services of a file, and the settings of the file itself that were not imported."""

    services: list[ImportedService] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)


class ImportFailed(Exception):  # noqa: N818  # an outcome, not a defect
    """The file cannot be read in its format; the message says why."""


def service_name(text: str, taken: Iterable[str] = ()) -> str:
    """Returns a valid service name similar to `text` that is not `taken`."""
    found = re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-_")[:60]
    found = found if found[:1].isalpha() else f"s-{found}".rstrip("-")
    known, number, name = set(taken), 2, found
    while name in known:
        name, number = f"{found}-{number}", number + 1
    return name


def seconds(value: Any) -> str | None:
    """Returns a number of seconds as a duration; None for other text."""
    text = str(value).strip()
    return f"{text}s" if re.fullmatch(r"\d+(\.\d+)?", text) else None


def number(value: Any) -> int | None:
    """Returns a whole number; None for other text."""
    text = str(value).strip()
    return int(text) if re.fullmatch(r"\d+", text) else None


def is_true(value: Any) -> bool:
    """Whether a word of an INI file, or a value of YAML, means yes."""
    return str(value).strip().lower() in ("1", "true", "yes", "on")


def literal(text: str) -> str:
    """Returns the text with escaped dollars, if servd would expand it."""
    return text.replace("$", "$$") if "${" in text or "$$" in text else text


def variables(value: Any) -> dict[str, str]:
    """Returns the environment from a table, or from a list of NAME=value."""
    if isinstance(value, Mapping):
        return {str(key): _text(entry) for key, entry in value.items() if entry is not None}
    items = value if isinstance(value, list) else [value] if value else []
    pairs = (str(item).partition("=") for item in items)
    return {name.strip(): entry for name, equals, entry in pairs if equals}


def _text(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
