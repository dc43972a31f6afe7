"""Renders changes as JSON rows, and rows as text: `+ ~ -` with the keys that differ."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import TypedDict

from servd.config.kinds import DaemonKind
from servd.core.secrets import MASK
from servd.plan.change import Change, Sign
from servd.plan.render import summary

NOTHING = "No changes. Code changes are not detected: run `servd restart NAME`."
_COLOURS = {"+": "32", "~": "33", "-": "31"}


class KeyRow(TypedDict):
    """A key that is added (`+`), changed (`~`), or removed (`-`)."""

    sign: Sign
    key: str
    before: str
    after: str


class Row(TypedDict):
    """One change as JSON has it."""

    service: str
    kind: str
    sign: Sign
    keys: list[KeyRow]
    why: str
    notes: list[str]


class SettingRow(KeyRow):
    """A changed key of the daemon. `kind`: `live`, or `restart` if only a restart of the daemon
    applies it.
    """

    kind: DaemonKind


def change_rows(changes: Sequence[Change]) -> list[Row]:
    """Returns the changes as JSON rows, in the order of their application."""
    return [
        {
            "service": change.service,
            "kind": change.kind,
            "sign": change.sign,
            "keys": [
                {"sign": k.sign, "key": k.key, "before": k.before, "after": k.after}
                for k in change.keys
            ],
            "why": summary(change.plan) if change.kind == "add" else _why(change),
            "notes": list(change.notes),
        }
        for change in changes
    ]


def _why(change: Change) -> str:
    return " ".join(filter(None, (change.why, change.recreate_text)))


def rows_as_text(
    rows: Sequence[Row], settings: Sequence[SettingRow] = (), *, colour: bool = False
) -> str:
    """Returns one line for each change and each of its keys, and for each of the `settings`."""
    if not rows and not settings:
        return NOTHING
    names = max((len(row["service"]) for row in rows), default=0)
    kinds = max((len(row["kind"]) for row in rows), default=0)
    lines: list[str] = []
    for row in rows:
        sign = row["sign"]
        text = f"{sign} {row['service']:<{names}}  {row['kind']:<{kinds}}  {row['why']}".rstrip()
        lines.append(f"\x1b[{_COLOURS[sign]}m{text}\x1b[0m" if colour else text)
        width = max((len(key["key"]) for key in row["keys"]), default=0)
        lines += [f"    {k['sign']} {k['key']:<{width}}  {_values(k)}" for k in row["keys"]]
        lines += [f"    note: {note}" for note in row["notes"]]
    width = max((len(each["key"]) for each in settings), default=0)
    for each in settings:
        sign = each["sign"]
        text = f"{sign} {each['key']:<{width}}  {each['kind']:<7}  {_values(each)}"
        lines.append(f"\x1b[{_COLOURS[sign]}m{text}\x1b[0m" if colour else text)
    return "\n".join([*lines, "", counted(rows, settings)])


def counted(rows: Sequence[Row], settings: Sequence[SettingRow] = ()) -> str:
    """Returns `1 to add, 2 to change, 0 to remove`, and how many settings change."""
    signs = [row["sign"] for row in rows]
    text = f"{signs.count('+')} to add, {signs.count('~')} to change, {signs.count('-')} to remove"
    count = len(settings)
    return f"{text}; {count} servd setting{'' if count == 1 else 's'}" if settings else text


def _values(key: KeyRow) -> str:
    before, after = key["before"], key["after"]
    if before == after and MASK in after:
        return f"{after} -> changed value"
    if key["sign"] != "~" or not before:
        return after or before
    return f"{before} -> {after or '(not set)'}"
