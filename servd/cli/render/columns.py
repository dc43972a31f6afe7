"""Lays out a table of services in the width of a terminal. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from servd.cli.render import service_facts as facts
from servd.cli.render.figures import duration, elapsed, number, percent, size
from servd.cli.render.line import Span, StyledLine, padded, squeezed
from servd.cli.render.service_facts import ServiceRow
from servd.core.quick_dataclass import dataclass

_GAP = 2
_LEAST_NAME, _MOST_NAME = 10, 24


@dataclass(frozen=True, slots=True)
class Column:
    """One figure of each service, or of each worker."""

    title: str
    cell: Callable[[Any, Any], Span]
    least: int = 0
    left: bool = False
    shown: Callable[[Any], bool] = lambda row: True

    def width(self, cells: Sequence[Span]) -> int:
        """Returns the width that its title and its cells need."""
        return max([self.least, len(self.title), *(len(cell.text) for cell in cells)])


def _counted(row: ServiceRow) -> bool:
    return row["requests"] is not None


def _plain(format_: Callable[[Any], str], key: str) -> Callable[[Any, Any], Span]:
    return lambda row, now: Span(format_(row[key]))


def _styled(state: str) -> Span:
    return Span(state, facts.STYLES.get(state, ""))


STATE = Column(
    "STATE",
    lambda row, now: _styled(facts.state_of(row)),
    least=9,
    left=True,
)
READY = Column("READY", lambda row, now: facts.ready_cell(row))
RATE = Column("REQ/S", _plain(number, "rps"), least=6, shown=_counted)
ERRORS = Column(
    "5XX%",
    lambda row, now: Span(percent(row["error_rate"]), facts.rate_style(row["error_rate"])),
    shown=_counted,
)
P50 = Column("P50 MS", _plain(number, "p50_ms"), shown=_counted)
P99 = Column("P99 MS", _plain(number, "p99_ms"), shown=_counted)
CPU = Column("CPU%", lambda row, now: Span(number(facts.cpu(row))), least=5)
MEMORY = Column("MEM", lambda row, now: Span(size(facts.memory(row))), least=5)
GPU = Column(
    "GPU",
    lambda row, now: Span(facts.gpu_cell(row["processes"])),
    left=True,
    shown=lambda row: any(process["gpus"] for process in row["processes"]),
)
RESTARTS = Column("RESTARTS", lambda row, now: Span(str(row["restarts"])))
GENERATION = Column("GEN", lambda row, now: Span(str(row["generation"])))
SINCE = Column("FOR", lambda row, now: Span(duration(elapsed(row["since"], now), 1)), least=6)
ADDRESS = Column("ADDRESS", lambda row, now: Span(facts.address_cell(row), "dim"), left=True)

_SERVICE_COLUMNS = (
    STATE, READY, SINCE, RATE, ERRORS, P50, P99, CPU, MEMORY, GPU, RESTARTS, GENERATION,
    ADDRESS,
)  # fmt: skip
_BY_IMPORTANCE = (
    STATE, READY, RATE, ERRORS, P99, RESTARTS, MEMORY, GPU, CPU, ADDRESS, SINCE, P50, GENERATION,
)  # fmt: skip

WORKER_COLUMNS = (
    Column("WORKER", _plain(str, "worker")),
    Column("PID", _plain(str, "pid"), least=7),
    Column("STATE", lambda p, now: _styled(p["state"]), 9, left=True),
    Column("UP", lambda p, now: Span(duration(elapsed(p["started_at"], now), 1)), least=6),
    RATE, ERRORS, P99,
    Column("CPU%", _plain(number, "cpu_percent"), least=5),
    Column("MEM", _plain(size, "rss_bytes"), least=5),
    Column(
        "GPU",
        lambda p, now: Span(facts.gpu_cell([p])),
        left=True,
        shown=lambda process: bool(process["gpus"]),
    ),
    Column("IN FLIGHT", _plain(number, "in_flight"), shown=_counted),
    Column("REQUESTS", _plain(number, "requests"), shown=_counted),
    Column("GEN", _plain(str, "generation")),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ServiceTable:
    """A head, and a row for each value. `names`: the width of the first column."""

    head: StyledLine
    rows: list[StyledLine]
    names: int


def service_table(services: Sequence[ServiceRow], width: int, now: Any) -> ServiceTable:
    """Returns a row for each service, with as many columns as `width` has room for. A name that is
    too long for its column is squeezed.
    """
    chosen, cells, names = _chosen(services, width, now)
    head = _stripped(StyledLine.of(padded("SERVICE", names, left=True), *_titles(chosen, cells)))
    rows = [
        StyledLine.of(
            Span(padded(squeezed(service["name"], names), names, left=True), "bold"),
            *_cells(_columns_of(service, chosen), cells, number_),
            *_run(service, chosen, now),
        )
        for number_, service in enumerate(services)
    ]
    return ServiceTable(head, [_stripped(row) for row in rows], names)


def _columns_of(service: ServiceRow, chosen: Sequence[Column]) -> Sequence[Column]:
    """A task has no figures of a service."""
    figures = [STATE, READY] if service["kind"] == "task" else chosen
    return [column for column in chosen if column in figures]


def _run(service: ServiceRow, chosen: Sequence[Column], now: Any) -> list[Span]:
    """Returns when a task ran, where a service has its figures."""
    if service["kind"] != "task" or len(chosen) <= 2:
        return []
    return [Span(" " * _GAP), Span(facts.in_state(service, now), "dim")]


def worker_table(processes: Sequence[Any], width: int, now: Any) -> list[StyledLine]:
    """Returns a head and a row for each worker, with as many columns as there is room for."""
    shown = [column for column in WORKER_COLUMNS if any(map(column.shown, processes))]
    cells = {c.title: [c.cell(process, now) for process in processes] for c in shown}
    chosen: list[Column] = []
    left = width + _GAP
    for column in shown:
        if (left := left - column.width(cells[column.title]) - _GAP) < 0:
            break
        chosen.append(column)
    head = StyledLine.of(*_titles(chosen, cells)).restyled("dim")
    rows = [StyledLine.of(*_cells(chosen, cells, number_)) for number_ in range(len(processes))]
    return [_stripped(StyledLine(_shifted(line))) for line in (head, *rows)]


def _shifted(line: StyledLine) -> list[Span]:
    """Returns a line without the gap before its first column."""
    return [Span(line[0].text[_GAP:], line[0].style), *line[1:]] if line else []


def _chosen(
    services: Sequence[ServiceRow], width: int, now: Any
) -> tuple[list[Column], dict[str, list[Span]], int]:
    """Returns the columns to show, the cells of each, and the width of the names."""
    cells = {c.title: [c.cell(service, now) for service in services] for c in _SERVICE_COLUMNS}
    lengths = [len("SERVICE"), *(len(service["name"]) for service in services)]
    names = max(length for length in lengths if length <= _MOST_NAME)
    taken: set[str] = set()
    left = width - min(names, _LEAST_NAME)
    for column in _BY_IMPORTANCE:
        needed = column.width(cells[column.title]) + _GAP
        if column is not STATE and not any(map(column.shown, services)):
            continue
        if needed > left:
            if column is ADDRESS:
                continue
            break
        taken.add(column.title)
        left -= needed
        if column is P99:  # from here on, names are worth more than further figures
            left -= names - min(names, _LEAST_NAME)
    spent = sum(c.width(cells[c.title]) + _GAP for c in _SERVICE_COLUMNS if c.title in taken)
    chosen = [column for column in _SERVICE_COLUMNS if column.title in taken]
    room = max(1, width - spent)
    whole = [length for length in lengths if length <= room]
    others = [min(room, _MOST_NAME)] if len(whole) < len(lengths) else []
    return chosen, cells, max([*whole, *others])


def _titles(columns: Sequence[Column], cells: dict[str, list[Span]]) -> list[Span]:
    return [
        Span(" " * _GAP + padded(c.title, c.width(cells[c.title]), left=c.left)) for c in columns
    ]


def _cells(columns: Sequence[Column], cells: dict[str, list[Span]], row: int) -> list[Span]:
    found: list[Span] = []
    for column in columns:
        cell, width = cells[column.title][row], column.width(cells[column.title])
        space = " " * (width - len(cell.text))
        before, after = ("", space) if column.left else (space, "")
        found += [Span(" " * _GAP + before), cell, Span(after)]
    return found


def _stripped(line: StyledLine) -> StyledLine:
    """Returns a line without spaces at its end."""
    spans = [span for span in line if span.text]
    while spans and spans[-1].text.isspace():
        spans.pop()
    if spans:
        spans[-1] = Span(spans[-1].text.rstrip(), spans[-1].style)
    return StyledLine(spans)
