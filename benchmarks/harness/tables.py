"""Results of measurements, and tables of them."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.stats import interval, ratios

Samples = dict[str, list[float]]
"""The values of one server, by the key of their column, in the order of measuring."""

BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
"""What stands around the table that is written into a page of somebody else."""


@dataclass(frozen=True)
class Column:
    """One figure; with `over`, the ratio to what this server had at the same place of the order."""

    key: str
    title: str
    digits: int = 2
    over: str = ""


@dataclass
class Result:
    """What one measurement found: samples of each server, or why there are none."""

    name: str
    title: str
    text: str
    columns: tuple[Column, ...]
    samples: dict[str, Samples] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def add(self, server: str, values: Mapping[str, float]) -> None:
        """Appends one sample of each key."""
        found = self.samples.setdefault(server, {})
        for key, value in values.items():
            found.setdefault(key, []).append(value)

    def servers(self) -> list[str]:
        """All that have a row, in the order in which they came."""
        return list(dict.fromkeys([*self.samples, *self.failed]))

    def values(self, server: str, column: Column) -> list[float]:
        """The samples of a cell, as ratios where the column asks for them."""
        found = self.samples.get(server, {}).get(column.key, [])
        if column.over:
            return ratios(found, self.samples.get(column.over, {}).get(column.key, []))
        return found

    def column(self, key: str) -> Column:
        """The first column with this key."""
        return next(column for column in self.columns if column.key == key)


def cell(values: Sequence[float], digits: int) -> str:
    """The median and its interval; a sample that is alone has none."""
    if not values:
        return "-"
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    middle, low, high = interval(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"  # noqa: RUF001


def table(result: Result) -> str:
    """One measurement as Markdown: a row for each server. What failed says so in its row."""
    lines = [_row(["", *(column.title for column in result.columns)]), _rule(result.columns)]
    for server in result.servers():
        cells = [cell(result.values(server, column), column.digits) for column in result.columns]
        if server in result.failed:
            said = f"failed: {_plain(result.failed[server])}"
            cells = [said if shown == "-" else f"{shown}, then {said}" for shown in cells[:1]]
            cells += ["-"] * (len(result.columns) - 1)
        lines.append(_row([server, *cells]))
    return "\n".join(lines)


def page(
    results: Sequence[Result], about: Sequence[str], plots: Mapping[str, Sequence[str]]
) -> str:
    """The whole page of results: what they were measured on, then all tables and plots."""
    parts = ["# Benchmark results", "`benchmarks/run.py` writes this page.", "\n".join(about)]
    for result in results:
        parts += [f"## {result.title}", result.text, table(result)]
        parts += [f"![{result.title}]({name})" for name in plots.get(result.name, ())]
    return "\n\n".join(parts) + "\n"


@dataclass(frozen=True)
class Line:
    """One line of the short table: medians of some columns of one result."""

    title: str
    result: str
    keys: tuple[str, ...]
    form: str


def summary(lines: Sequence[Line], results: Sequence[Result], servers: Sequence[str]) -> str:
    """The short table: figures in rows, servers in columns, medians alone."""
    by_name = {result.name: result for result in results}
    rows = [_row(["", *servers]), _rule(servers)]
    for line in lines:
        result = by_name.get(line.result)
        if result is not None:
            rows.append(_row([line.title, *(_medians(line, result, name) for name in servers)]))
    return "\n".join(rows)


def _medians(line: Line, result: Result, server: str) -> str:
    found = [result.values(server, result.column(key)) for key in line.keys]
    if server in result.failed or not all(found):
        return "-"
    return line.form.format(*(statistics.median(values) for values in found))


def with_block(text: str, block: str) -> str:
    """The text with another block between the marks. Raises ValueError where they are missing."""
    pattern = re.compile(f"{re.escape(BEGIN)}\n.*?{re.escape(END)}", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"the marks are missing: {BEGIN} and {END}")
    return pattern.sub(lambda _: f"{BEGIN}\n{block}\n{END}", text, count=1)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _rule(columns: Sequence[object]) -> str:
    return "|" + "---|" * (len(columns) + 1)


def _plain(text: str) -> str:
    """One short line that no table takes for its own."""
    shown = " ".join(text.replace("|", "/").split())
    return shown if len(shown) <= 100 else shown[:99] + "…"
