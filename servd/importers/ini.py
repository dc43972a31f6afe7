"""Reads INI files of supervisord, Circus and systemd, with the line of each key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple


class Entry(NamedTuple):
    """A value with the line of its key."""

    value: str
    line: int


@dataclass(slots=True)
class Section:
    """A section: its name, and its keys with all their values, in order."""

    name: str
    line: int
    entries: dict[str, list[Entry]] = field(default_factory=dict)

    def last(self, key: str, otherwise: str = "") -> str:
        """Returns the last value of a key."""
        return self.entries[key][-1].value if self.entries.get(key) else otherwise

    def all_of(self, key: str) -> list[str]:
        """Returns all values of a key."""
        return [entry.value for entry in self.entries.get(key, ())]


def sections(text: str, *, comment: str, lower: bool) -> Iterator[Section]:
    """Yields the sections. `comment` holds the characters that begin a comment; `;` also does after
    a blank. An indented line, or one after a backslash, continues the value.
    """
    current, key, continues = Section("", 0), "", False
    for number, raw in enumerate(text.splitlines(), 1):
        line = re.sub(r"\s;.*", "", raw) if ";" in comment else raw
        stripped = line.strip()
        if not stripped or stripped[0] in comment:
            continue
        if continues or (line[0].isspace() and key):
            _continue(current.entries[key], stripped.removesuffix("\\"))
        elif match := re.fullmatch(r"\[(.+)\]", stripped):
            if current.name:
                yield current
            current, key = Section(match[1], number), ""
        else:
            name, _, value = stripped.partition("=")
            key = name.strip().lower() if lower else name.strip()
            found = value.strip().removesuffix("\\").strip()
            current.entries.setdefault(key, []).append(Entry(found, number))
        continues = stripped.endswith("\\") and bool(key)
    if current.name:
        yield current


def _continue(values: list[Entry], text: str) -> None:
    last = values[-1]
    values[-1] = last._replace(value=f"{last.value} {text}".strip())
