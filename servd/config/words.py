"""Keys with a choice of words, which other tools write in other cases."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, WithJsonSchema


def words_of(words: Iterable[str], *cases: Literal["lower", "upper", "title"]) -> dict[str, Any]:
    """Returns the schema of some words, in other cases too, which editors do not propose."""
    known = dict.fromkeys(words)
    all_of_them = [*known, *(getattr(word, case)() for case in cases for word in known)]
    return {"type": "string", "pattern": f"^({'|'.join(dict.fromkeys(all_of_them))})$"}


def _level(word: str) -> str:
    """Returns a level as servd spells it: Python has capitals, others `warn`."""
    return {"warn": "warning"}.get(word.lower(), word.lower())


_LEVELS = ("debug", "info", "warning", "error", "critical")
LogLevel = Annotated[
    Literal["debug", "info", "warning", "error", "critical"],
    BeforeValidator(lambda value: _level(value) if isinstance(value, str) else value),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": list(_LEVELS)},
                words_of((*_LEVELS, "warn"), "upper", "title"),
            ]
        }
    ),
]


def _signal(value: object) -> object:
    """Returns the name of a signal that is written as `TERM`, `sigterm` or 15."""
    if type(value) is int:
        return next((each.name for each in signal.Signals if each == value), value)
    if not isinstance(value, str):
        return value
    return value.upper() if value.upper().startswith("SIG") else f"SIG{value.upper()}"


STOP_SIGNALS = (
    "SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGKILL",
)  # fmt: skip
StopSignal = Annotated[
    Literal["SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGKILL"],
    BeforeValidator(_signal),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": list(STOP_SIGNALS)},
                words_of([*STOP_SIGNALS, *(s[3:] for s in STOP_SIGNALS)], "lower"),
                {"type": "integer", "minimum": 1, "maximum": 64},
            ]
        }
    ),
]
