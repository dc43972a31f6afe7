"""Lines of text in the cells of a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from servd.cli.render.line import Span, StyledLine, flowed, indented, squeezed, wrapped

WORDS = st.text("ab\u8868\u00e9 ", max_size=60)


@given(WORDS, st.integers(2, 30))
def test_a_wrapped_text_loses_no_word_and_fits(text: str, width: int) -> None:
    lines = list(wrapped(text, width))
    assert all(cell_len(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("one two three", 8, ["one two", "three"]),
        ("one\n  two", 8, ["one", "  two"]),
        ("abcdefghij k", 4, ["abcd", "efgh", "ij k"]),
        ("one two three", None, ["one two three"]),
        ("", 8, []),
    ],
)
def test_a_text_is_broken_between_words(text: str, width: int | None, lines: list[str]) -> None:
    assert list(wrapped(text, width)) == lines


def test_parts_stay_together_where_they_can() -> None:
    parts = ["http://a:1", "generation 1", "pid 1 2"]
    assert list(flowed(parts, 24)) == ["http://a:1  generation 1", "pid 1 2"]
    assert list(flowed(parts, 9)) == ["http://a:", "1", "generatio", "n 1", "pid 1 2"]
    assert list(flowed(parts, None)) == ["  ".join(parts)]


@given(WORDS, st.integers(1, 40))
def test_a_fitted_line_has_its_width(text: str, width: int) -> None:
    assert StyledLine.of(Span(text, "red"), Span(text)).fitted(width).width == width


def test_a_long_name_keeps_its_end() -> None:
    assert squeezed("recommendations-worker-12", 12) == "recomm…er-12"
    assert squeezed("short", 12) == "short"


def test_a_terminal_without_colours_still_gets_what_is_bold_or_reversed() -> None:
    line = StyledLine.of("a", Span("b", "bold red"), Span("c", "green"))
    assert line.text("plain") == "abc"
    assert line.text("attributes") == "a\x1b[1mb\x1b[0mc"
    assert line.text("colour") == "a\x1b[1;31mb\x1b[0m\x1b[32mc\x1b[0m"


def test_an_indented_text_keeps_some_room_on_a_very_narrow_terminal() -> None:
    assert [line.plain for line in indented("abc def ghijk", 6, 4)] == ["    abc def", "    ghijk"]
