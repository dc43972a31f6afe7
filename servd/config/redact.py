"""Keeps values of the environment, of files and of secrets out of messages."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from servd.config.scalars import SHOWN_LENGTH
from servd.config.tree import Node, walk
from servd.core.diagnostics import Diagnostic
from servd.core.secrets import MASK

_HARMLESS = re.compile(r"\d{1,5}|true|false|auto|none", re.IGNORECASE)
"""Values that are useful and harmless to show: ports, counts, switches."""

_SHORT = 6
"""A value with fewer characters is replaced only where it is quoted, and only in messages about its
own key: it may be a word of the message.
"""


def redact(text: str, node: Node) -> str:
    """Returns a message about `node` with its `${VAR}` and `${file:PATH}` as written instead
    of their values, and with a secret masked.
    """
    for _path, leaf in walk(node):
        text = _replace(text, _hidden(leaf))
    return text


def redact_all(diagnostics: Iterable[Diagnostic], root: Node) -> list[Diagnostic]:
    """Returns messages with the values of all keys of the tree redacted."""
    hidden = {
        value: shown
        for _path, leaf in walk(root)
        for value, shown in _hidden(leaf).items()
        if len(value) >= _SHORT
    }
    return [
        replace(each, message=_replace(each.message, hidden), hint=_replace(each.hint, hidden))
        for each in diagnostics
    ]


def _hidden(leaf: Node) -> dict[str, str]:
    """Returns what is shown instead of each hidden text."""
    hidden = {
        each.text: each.written
        for each in leaf.references
        if each.text and (leaf.secret or not _HARMLESS.fullmatch(each.text))
    }
    if leaf.secret and not hidden and isinstance(leaf.value, str) and leaf.value:
        hidden[leaf.value] = MASK
    return hidden


def _replace(text: str, hidden: dict[str, str]) -> str:
    """Replaces the texts, also where a message contains only the start of a long one."""
    if not hidden:
        return text
    shown = {value[:SHOWN_LENGTH]: instead for value, instead in hidden.items()} | hidden
    longest_first = sorted(shown, key=len, reverse=True)
    return re.sub("|".join(map(_pattern, longest_first)), lambda match: shown[match[0]], text)


def _pattern(value: str) -> str:
    escaped = re.escape(value)
    return escaped if len(value) >= _SHORT else rf"(?<=[\"'/:=]){escaped}(?=[\"'/:=\s,]|$)"
