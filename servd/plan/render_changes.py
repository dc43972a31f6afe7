"""Changes for people and programs: `+ ~ -` with the keys that differ, or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from servd.plan.change import Change, KeyChange
from servd.plan.render import summary
from servd.secrets import MASK

_COLOURS = {"+": "32", "~": "33", "-": "31"}


def as_text(changes: Sequence[Change], *, colour: bool = False) -> str:
    """One line for a change, in the order in which it happens, and one for each of its keys."""
    if not changes:
        return "nothing differs (code is not compared: `servd restart` rolls it)"
    name_width = max(len(change.service) for change in changes)
    kind_width = max(len(change.kind) for change in changes)
    lines: list[str] = []
    for change in changes:
        head = f"{change.sign} {change.service:<{name_width}}  {change.kind:<{kind_width}}"
        text = f"{head}  {_headline(change)}".rstrip()
        lines.append(f"\x1b[{_COLOURS[change.sign]}m{text}\x1b[0m" if colour else text)
        key_width = max((len(key.key) for key in change.keys), default=0)
        lines += [f"    {key.key:<{key_width}}  {_values(key)}" for key in change.keys]
        lines += [f"    note: {note}" for note in change.notes]
    return "\n".join([*lines, "", counted(changes)])


def counted(changes: Sequence[Change]) -> str:
    """`1 to add, 2 to change, 0 to remove`."""
    signs = [change.sign for change in changes]
    return f"{signs.count('+')} to add, {signs.count('~')} to change, {signs.count('-')} to remove"


def as_json(changes: Sequence[Change]) -> list[dict[str, Any]]:
    """The changes for programs."""
    return [
        {
            "service": change.service,
            "kind": change.kind,
            "keys": [
                {"key": key.key, "before": key.before, "after": key.after} for key in change.keys
            ],
            "why": change.why,
            "notes": list(change.notes),
        }
        for change in changes
    ]


def _headline(change: Change) -> str:
    if change.kind == "add":
        return summary(change.plan)
    return change.why


def _values(key: KeyChange) -> str:
    if key.before == key.after and MASK in key.after:
        return f"{key.after} -> another value"
    if not key.before:
        return key.after
    return f"{key.before} -> {key.after or '(removed)'}"
