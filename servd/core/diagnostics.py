"""Mistakes as values: a place, a message, and what would be right.

Producers return lists of diagnostics; only the command line and the admin API turn them into text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from servd.core.secrets import mask_line


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A position in a configuration file; line and column count from 1.

    Line 0 means the file as a whole, and a `file` in angle brackets is not a file at all (an
    environment variable, the command line).
    """

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        if self.line == 0:
            return self.file
        return f"{self.file}:{self.line}:{self.column}"


Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One mistake (or warning) in a configuration.

    `path` is the dotted key that it is about ("services.web.workers"), empty for a whole file;
    `hint` says what would be right, when that is known; `code` is a stable word for programs;
    `trace` is the traceback of the user's own code, where that is what went wrong.
    """

    place: Place
    message: str
    path: str = ""
    hint: str = ""
    severity: Severity = "error"
    code: str = "invalid"
    trace: str = ""

    def summary(self) -> str:
        """One line: `FILE:LINE:COL: services.web.workers: message (hint)`."""
        label = f"{self.path}: " if self.path else ""
        warning = "warning: " if self.severity == "warning" else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.place}: {warning}{label}{self.message}{hint}"


def errors_in(diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Those of `diagnostics` that make a configuration unusable."""
    return [diagnostic for diagnostic in diagnostics if diagnostic.severity == "error"]


def in_order(diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Sorted by place, each mistake once.

    A value of `[defaults]` is validated again in every service that inherits it; the same place
    with the same message is the same mistake, and the shortest path names it best.
    """
    best: dict[tuple[Place, str], Diagnostic] = {}
    for diagnostic in diagnostics:
        key = (diagnostic.place, diagnostic.message)
        known = best.get(key)
        if known is None or len(diagnostic.path) < len(known.path):
            best[key] = diagnostic
    return sorted(best.values(), key=lambda d: (d.place, d.path, d.message))


def render(diagnostic: Diagnostic, sources: Mapping[str, str], *, colour: bool = False) -> str:
    """The summary with the offending line under it and a caret at the column.

    `sources` maps the file names of places to their text; a file that is not there is shown
    without its line. Values of keys that look secret are masked.
    """
    bold, red, reset = ("\033[1m", "\033[31m", "\033[0m") if colour else ("", "", "")
    head = f"{bold}{diagnostic.summary()}{reset}" if colour else diagnostic.summary()
    text = sources.get(diagnostic.place.file)
    trace = f"\n{diagnostic.trace}" if diagnostic.trace else ""
    if text is None or diagnostic.place.line == 0:
        return head + trace
    lines = text.splitlines()
    if diagnostic.place.line > len(lines):
        return head + trace
    line = mask_line(lines[diagnostic.place.line - 1], diagnostic.path)
    number = str(diagnostic.place.line)
    shown = line.expandtabs(1)
    caret = " " * (min(diagnostic.place.column, len(shown) + 1) - 1) + "^"
    return f"{head}\n  {number} | {shown}\n  {' ' * len(number)} | {red}{caret}{reset}{trace}"
