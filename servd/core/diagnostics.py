"""Mistakes in a configuration as values. The command line and the admin API render them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from servd.core.quick_dataclass import dataclass
from servd.core.secrets import mask_line


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A position in a file; line and column count from 1, line 0 is the file as a whole. A `file`
    in angle brackets is another source (an environment variable, the command line).
    """

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One mistake (or warning) in a configuration. `path` is the dotted key, "" for a whole file.
    `hint` says how to fix it. `code` is a stable word for programs. `trace` is the traceback
    of user code, if that failed. `related` is another place that is involved.
    """

    place: Place
    message: str
    path: str = ""
    hint: str = ""
    severity: Severity = "error"
    code: str = "invalid"
    trace: str = ""
    related: Place | None = None

    def summary(self) -> str:
        """One line: `FILE:LINE:COL: services.web.workers: message (hint)`."""
        label = f"{self.path}: " if self.path else ""
        warning = "warning: " if self.severity == "warning" else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.place}: {warning}{label}{self.message}{hint}"


def errors_in(diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Returns the diagnostics that make a configuration unusable."""
    return [diagnostic for diagnostic in diagnostics if diagnostic.severity == "error"]


def in_order(diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Returns the diagnostics sorted by place, each mistake once: a value of `[defaults]` is
    validated in every service that inherits it, and the shortest path names it best.
    """
    best: dict[tuple[Place, str], Diagnostic] = {}
    given = list(diagnostics)
    unreadable = {each.place for each in given if each.code == "syntax" and each.place.line}
    for diagnostic in given:
        if diagnostic.place in unreadable and diagnostic.code != "syntax":
            continue  # the value is wrong because it could not be read
        key = (diagnostic.place, diagnostic.message)
        known = best.get(key)
        if known is None or len(diagnostic.path) < len(known.path):
            best[key] = diagnostic
    return sorted(best.values(), key=lambda d: (d.place, d.path, d.message))


def render(diagnostic: Diagnostic, sources: Mapping[str, str], *, colour: bool = False) -> str:
    """Returns the summary with the offending line under it, secrets masked, and a caret at the
    column. `sources` maps file names to their text; the line of a missing file is left out.
    """
    bold, red, reset = ("\033[1m", "\033[31m", "\033[0m") if colour else ("", "", "")
    head = f"{bold}{diagnostic.summary()}{reset}" if colour else diagnostic.summary()
    trace = f"\n{diagnostic.trace}" if diagnostic.trace else ""
    lines = sources.get(diagnostic.place.file, "").splitlines()
    if not 0 < diagnostic.place.line <= len(lines):
        return head + trace
    number = len(str(diagnostic.place.line))
    text, at = _shown(diagnostic.place, lines, diagnostic.path)
    before = ""
    related = diagnostic.related
    if related is not None and related.file == diagnostic.place.file and related.line:
        number = max(number, len(str(related.line)))
        before = f"\n  {related.line:>{number}} | {_shown(related, lines, diagnostic.path)[0]}"
    line = f"\n  {diagnostic.place.line:>{number}} | {text}"
    return f"{head}{before}{line}\n  {' ' * number} | {' ' * at}{red}^{reset}{trace}"


_WIDTH = 100
"""Characters of a line that are shown, around the column."""


def _shown(place: Place, lines: Sequence[str], path: str) -> tuple[str, int]:
    """Returns the line of a place, cut around its column, and how far in that is."""
    line = mask_line(lines[place.line - 1], path).expandtabs(1)
    at = min(place.column, len(line) + 1) - 1
    start = max(0, min(at - _WIDTH // 2, len(line) - _WIDTH))
    end = start + _WIDTH
    left, right = "…" if start else "", "…" if end < len(line) else ""
    return f"{left}{line[start:end]}{right}", at - start + len(left)
