"""Lines of styled text, measured in the cells of a terminal. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from rich.cells import cell_len, chop_cells, set_cell_size

_CODES = {
    "bold": "1", "dim": "90", "reverse": "7",
    "red": "31", "green": "32", "yellow": "33", "cyan": "36",
}  # fmt: skip
_ATTRIBUTES = ("bold", "reverse")
Style = Literal["plain", "attributes", "colour"]
"""What a terminal gets: text alone, bold and reversed text too, or colours too."""

_WORD = re.compile(r"\s*\S+")


class Span(NamedTuple):
    """A piece of text in one style; styles are separated by spaces."""

    text: str
    style: str = ""


class StyledLine(tuple[Span, ...]):
    """One line of a terminal."""

    __slots__ = ()

    @classmethod
    def of(cls, *parts: str | Span) -> StyledLine:
        """Returns a line of these parts; plain text has no style."""
        return cls(Span(part) if isinstance(part, str) else part for part in parts)

    @property
    def plain(self) -> str:
        """The text alone."""
        return "".join(span.text for span in self)

    @property
    def width(self) -> int:
        """The number of cells."""
        return cell_len(self.plain)

    def text(self, style: Style) -> str:
        """Returns the line for a terminal."""
        return self.plain if style == "plain" else "".join(_sequence(s, style) for s in self)

    def fitted(self, width: int) -> StyledLine:
        """Returns the line in exactly `width` cells: padded, or cut with an ellipsis."""
        if (missing := width - self.width) >= 0:
            return StyledLine((*self, Span(" " * missing))) if missing else self
        spans: list[Span] = []
        room = width - 1
        for span in self:
            text = set_cell_size(span.text, min(cell_len(span.text), max(0, room)))
            room -= cell_len(text)
            spans.append(Span(text, span.style))
        return StyledLine((*spans, Span("…" if width > 0 else "")))

    def restyled(self, style: str) -> StyledLine:
        """Returns the line in one style."""
        return StyledLine((Span(self.plain, style),))


def _sequence(span: Span, style: Style) -> str:
    names = span.style.split()
    codes = ";".join(_CODES[name] for name in names if style == "colour" or name in _ATTRIBUTES)
    return f"\x1b[{codes}m{span.text}\x1b[0m" if codes and span.text else span.text


def squeezed(text: str, width: int) -> str:
    """Returns a text in `width` cells at most: its beginning and its end, since names of a kind
    often differ in their end alone.
    """
    if cell_len(text) <= width:
        return text
    tail = max(0, (width - 1) // 2)
    head = max(0, width - 1 - tail)
    return f"{set_cell_size(text, head)}…{text[len(text) - tail :]}"[: max(0, width)]


def padded(text: str, width: int, *, left: bool) -> str:
    """Returns a text with spaces, so that it takes `width` cells."""
    space = " " * max(0, width - cell_len(text))
    return text + space if left else space + text


def wrapped(text: str, width: int | None) -> Iterator[str]:
    """Yields a text in lines of `width` cells at most, broken between words where that is possible.
    Its own line breaks and indentation stay. None: lines as long as they are.
    """
    for paragraph in text.expandtabs(4).splitlines():
        yield from [paragraph] if width is None else _broken(paragraph.rstrip(), max(2, width))


def _broken(paragraph: str, width: int) -> Iterator[str]:
    if cell_len(paragraph) <= width:
        yield paragraph
        return
    line = ""
    for token in _WORD.findall(paragraph):
        if cell_len(line + token) <= width:
            line += token
            continue
        if line.strip():
            yield line
        *full, line = chop_cells(token.lstrip() if line.strip() else token, width) or [""]
        yield from full
    yield line


def flowed(parts: Sequence[str], width: int | None) -> Iterator[str]:
    """Yields parts with two spaces between them, broken between parts where that is possible."""
    line = ""
    for part in parts:
        longer = f"{line}  {part}" if line else part
        if width is None or cell_len(longer) <= width:
            line = longer
            continue
        if line:
            yield line
        *full, line = wrapped(part, width)
        yield from full
    yield line


def indented(text: str, width: int | None, indent: int, style: str = "") -> Iterator[StyledLine]:
    """Yields a wrapped text, moved to the right by `indent`."""
    room = None if width is None else max(10, width - indent)
    for line in wrapped(text, room):
        yield StyledLine.of(" " * indent, Span(line, style))
