"""One screen of `servd top`: its lines, and where a key leads from it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from servd.cli.render import service_facts as facts
from servd.cli.render.columns import service_table
from servd.cli.render.figures import number, percent, size
from servd.cli.render.line import Span, StyledLine, padded, wrapped
from servd.cli.render.output import workers as workers_of
from servd.cli.render.service_facts import ServiceRow
from servd.cli.render.status_table import (
    Page,
    detail_body,
    last_seen,
    remarks_on_all,
    summary,
)
from servd.cli.screen.view import ORDERS, TopView
from servd.core.quick_dataclass import dataclass

_FOLDED, _UNFOLDED = "+ ", "- "

_LEAST_ROWS = 4
"""Rows that the list keeps on a low screen; the head gives its own for them."""

_KEYS = (
    ("Up, k / Down, j", "previous / next service; scrolls long details"),
    ("PgUp / PgDn", "one screen up / down"),
    ("Home, g / End, G", "first / last service"),
    ("Enter, Space", "show or hide the details of the service"),
    ("Right / Left", "show / hide them"),
    ("*", "show or hide the details of all"),
    ("/", "filter by name, state, address or error; Esc clears the filter"),
    ("s / S", "next / previous order"),
    (" ".join(ORDERS), "sort by " + ", ".join(order.name for order in ORDERS.values())),
    ("?, h, F1", "this help"),
    ("q, F10, Ctrl-C", "quit"),
    ("", ""),
    ("READY", "workers that are ready, of those wanted"),
    ("REQ/S, 5XX%, P50, P99", "requests of the last ten seconds"),
)
_KEY_CELLS, _LEAST_MEANING = 24, 30


@dataclass(frozen=True, slots=True)
class Block:
    """The lines of one service, from `start` of the list on."""

    name: str
    lines: tuple[StyledLine, ...]
    start: int

    @property
    def end(self) -> int:
        """The line after its last one."""
        return self.start + len(self.lines)


@dataclass(frozen=True, slots=True)
class Screen:
    """The size of a terminal, and the time. Without `height`, all lines are shown."""

    width: int
    height: int | None
    now: datetime


class Frame:
    """What is shown of a status with a view. `error`: why the status is not the present one."""

    def __init__(
        self, status: Mapping[str, Any], view: TopView, screen: Screen, error: str = ""
    ) -> None:
        self._status = status
        self._screen = screen
        self._services: list[ServiceRow] = view.chosen(status["services"])
        self._head = self._heading(error)
        self._titles, self._blocks = self._listed(view)
        self.view = self._settled(view)

    @property
    def lines(self) -> list[StyledLine]:
        """The lines of the screen, from its top."""
        width, height = self._screen.width, self._screen.height
        body = [line for block in self._blocks for line in self._marked(block)]
        if height is None:
            return [*self._head, self._titles, *body]
        if self.view.shows_help:
            return self._help(width, height)
        if not self._blocks:
            body = [StyledLine.of(Span("  no service matches the filter", "dim"))]
        offset = self.view.offset
        body = body[offset : offset + self._rows]
        body += [StyledLine()] * (self._rows - len(body))
        lines = [*self._head, self._titles, *body, self._foot(width)]
        return [_cut(line, width) for line in lines[-height:]]

    def after(self, key: str) -> TopView:
        """Returns the view after a key."""
        view = self.view
        if view.shows_help:
            return replace(view, shows_help=False)
        if view.is_typing and key not in ("up", "down", "pgup", "pgdn"):
            return view.after_typing(key)
        if (changed := view.after_option(key)) is not None:
            return changed
        if key == "*":
            return view.toggle_all(len(self._status["services"]))
        if not self._blocks:
            return view
        return self._moved(key)

    # movement

    def _moved(self, key: str) -> TopView:
        view, last = self.view, len(self._blocks) - 1
        at = self._position
        if key in ("up", "k"):
            return self._upwards(at)
        if key in ("down", "j"):
            return self._downwards(at)
        if key in ("home", "g"):
            return replace(view, selected=self._blocks[0].name, offset=0)
        if key in ("end", "G"):
            return self._reveal(last)
        if key in ("pgup", "pgdn"):
            return self._paged(self._rows if key == "pgdn" else -self._rows)
        name = self._blocks[at].name
        unfolded = view.is_unfolded(name, len(self._status["services"]))
        if key in ("enter", " ") or (key == "right" and not unfolded):
            return view.toggle(name)
        return view.toggle(name) if key == "left" and unfolded else view

    def _upwards(self, at: int) -> TopView:
        offset, block = self.view.offset, self._blocks[at]
        if block.start < offset:  # its beginning is above: scroll to it
            return replace(self.view, offset=offset - 1)
        if at == 0:
            return replace(self.view, offset=0)
        return self._reveal(at - 1, from_below=True)

    def _downwards(self, at: int) -> TopView:
        offset, block = self.view.offset, self._blocks[at]
        if block.end > offset + self._rows:  # its end is below: scroll to it
            return replace(self.view, offset=offset + 1)
        return self._reveal(min(at + 1, len(self._blocks) - 1))

    def _reveal(self, at: int, *, from_below: bool = False) -> TopView:
        """Selects a service, and shows as much of it as there is room for."""
        block, offset, rows = self._blocks[at], self.view.offset, self._rows
        if len(block.lines) > rows:
            offset = block.end - rows if from_below else block.start
        else:
            offset = min(max(offset, block.end - rows), block.start)
        return replace(self.view, selected=block.name, offset=offset)

    def _paged(self, lines: int) -> TopView:
        """Scrolls by a screen; the selection stays as far down the screen as it was."""
        total = self._blocks[-1].end
        offset = max(0, min(self.view.offset + lines, total - self._rows))
        selected = self._blocks[self._position]
        if offset == self.view.offset:  # at an end of the list
            at = len(self._blocks) - 1 if lines > 0 else 0
            return replace(self.view, selected=self._blocks[at].name)
        line = max(offset, selected.start + offset - self.view.offset)
        below = (b for b in self._blocks if line <= b.start < offset + self._rows)
        around = (b for b in reversed(self._blocks) if b.start < offset + self._rows)
        found = next(below, None) or next(around)
        return replace(self.view, selected=found.name, offset=offset)

    @property
    def _position(self) -> int:
        names = [block.name for block in self._blocks]
        return names.index(self.view.selected) if self.view.selected in names else 0

    def _settled(self, view: TopView) -> TopView:
        """Returns the view with a selected service that is there, and is visible."""
        self.view = view
        if not self._blocks or self._screen.height is None:
            return replace(view, offset=0)
        block = self._blocks[self._position]
        most = max(0, self._blocks[-1].end - self._rows)
        offset = max(0, min(view.offset, most))
        if block.end <= offset or block.start >= offset + self._rows:
            offset = min(block.start, max(0, block.end - self._rows))
        return replace(view, selected=block.name, offset=offset)

    @property
    def _rows(self) -> int:
        """Lines that the list has."""
        assert self._screen.height is not None
        return max(1, self._screen.height - len(self._head) - 2)

    # what is shown

    def _heading(self, error: str) -> list[StyledLine]:
        status, width, now = self._status, self._screen.width, self._screen.now
        lines = [StyledLine.of(Span(_fitting(summary(status, now), width), "bold"))]
        if error:
            lines.append(StyledLine.of(Span(error, "bold red")))
        lines += [StyledLine.of(note) for note in remarks_on_all(status)]
        lines.append(StyledLine.of(_fitting(_load(status), width)))
        if last := last_seen(status, now):
            failed = status["last_reload"]["error"]
            lines.append(StyledLine.of(Span(last, "red" if failed else "dim")))
        if self._screen.height is not None:
            lines = lines[: max(1, self._screen.height - 2 - _LEAST_ROWS)]
        return [_cut(line, width) for line in lines]

    def _listed(self, view: TopView) -> tuple[StyledLine, list[Block]]:
        screen = self._screen
        width = screen.width - self._mark
        page = Page(width, width, screen.now)
        table = service_table(self._services, page.width, screen.now)
        everything = self._status["services"]
        by_name = {service["name"]: service for service in everything}
        blocks: list[Block] = []
        start = 0
        for service, row in zip(self._services, table.rows, strict=True):
            name = service["name"]
            lines = [StyledLine((Span(row[0].text, "bold"), *row[1:]))]
            if view.is_unfolded(name, len(everything)):
                lines += _details(service, by_name, page, hidden=len(name) > table.names)
            elif why := facts.reason(service, by_name):
                text = Span(" ".join(why.split()), facts.reason_style(service))
                lines.append(_cut(StyledLine.of("  ", text), page.width))
            blocks.append(Block(name, tuple(lines), start))
            start = blocks[-1].end
        return StyledLine((Span(" " * self._mark), *table.head)).restyled("dim"), blocks

    @property
    def _mark(self) -> int:
        """Cells before the name: for + or - of what is folded or unfolded."""
        return 0 if self._screen.height is None else len(_FOLDED)

    def _marked(self, block: Block) -> list[StyledLine]:
        """Returns the lines of a service, the first one with its mark, reversed if selected."""
        if self._screen.height is None:
            return list(block.lines)
        view = self.view
        is_unfolded = view.is_unfolded(block.name, len(self._status["services"]))
        first, *rest = block.lines
        first = StyledLine((Span(_UNFOLDED if is_unfolded else _FOLDED), *first))
        if block.name == view.selected:
            first = first.fitted(self._screen.width).restyled("reverse")
        return [first, *(StyledLine((Span(" " * self._mark), *line)) for line in rest)]

    def _foot(self, width: int) -> StyledLine:
        view = self.view
        if view.is_typing:
            return StyledLine.of(f"/{view.filter}", Span(" ", "reverse"))
        total = self._blocks[-1].end if self._blocks else 0
        last = min(total, view.offset + self._rows)
        place = f"lines {view.offset + 1}-{last} of {total}" if total > self._rows else ""
        if view.filter:
            count = f"{len(self._blocks)} of {len(self._status['services'])}"
            keys = [f"filter: {view.filter} ({count})", "Esc clear", "q quit"]
        else:
            keys = ["? help", "q quit", "/ filter", "Enter details"]
            keys.append(f"s sort: {ORDERS[view.order].name}")
        text = _first_parts([*keys, place] if place else keys, width)
        return StyledLine.of(Span(text, "dim"))

    def _help(self, width: int, height: int) -> list[StyledLine]:
        lines = [StyledLine.of(Span("servd top", "bold")), StyledLine(), *_help(width)][
            : height - 1
        ]
        lines += [StyledLine()] * (height - 1 - len(lines))
        return [_cut(line, width) for line in [*lines, StyledLine.of(Span("any key: back", "dim"))]]


def _help(width: int) -> Iterator[StyledLine]:
    """Yields each key with its meaning beside it, or below it where there is little room."""
    beside = width >= _KEY_CELLS + _LEAST_MEANING
    for keys, meaning in _KEYS:
        texts = list(wrapped(meaning, width - _KEY_CELLS if beside else width - 2)) or [""]
        if not beside:
            yield StyledLine.of(Span(keys, "bold"))
        for number_, text in enumerate(texts):
            left = keys if beside and not number_ else ""
            cells = _KEY_CELLS if beside else 2
            yield StyledLine.of(Span(padded(left, cells, left=True), "bold"), text)


def _details(
    service: ServiceRow, services: Mapping[str, ServiceRow], page: Page, *, hidden: bool
) -> list[StyledLine]:
    """Returns all that is known of a service, its whole name too if its row has not room for it."""
    lines = [StyledLine.of("  ", Span(service["name"], "bold"))] if hidden else []
    return [*lines, *detail_body(service, services, page, indent=2)]


def _load(status: Mapping[str, Any]) -> list[str]:
    """Returns requests, errors, workers, CPU and memory of all services together."""
    services: Sequence[ServiceRow] = status["services"]
    rps = sum(service["rps"] or 0 for service in services)
    failed = sum((service["rps"] or 0) * (service["error_rate"] or 0) for service in services)
    workers = sum(len(service["processes"]) for service in services)
    cpu = sum(facts.cpu(service) or 0 for service in services)
    memory = sum(facts.memory(service) for service in services)
    return [
        f"{number(round(rps, 1))} req/s",
        f"{percent(failed / rps if rps else 0)}% 5xx",
        f"{len(services)} service{'' if len(services) == 1 else 's'}",
        workers_of(workers),
        f"CPU {number(round(cpu, 1))}%",
        f"memory {size(memory)}",
    ]


def _fitting(parts: Sequence[str], width: int) -> str:
    """Returns as many parts as fit, the first ones; of those that start with `servd` and do not
    fit, the rest is worth more.
    """
    text = _first_parts(parts, width)
    if parts[0].startswith("servd") and len("  ".join(parts[:2])) > width:
        return _first_parts(parts[1:], width)
    return text


def _first_parts(parts: Sequence[str], width: int) -> str:
    text = parts[0]
    for part in parts[1:]:
        if len(text) + 2 + len(part) > width:
            break
        text += f"  {part}"
    return text


def _cut(line: StyledLine, width: int) -> StyledLine:
    return line if line.width <= width else line.fitted(width)
