"""Keys, from what a terminal sends."""

from __future__ import annotations

import pytest

from servd.cli.screen.keys import KeyDecoder


@pytest.mark.parametrize(
    ("sent", "keys"),
    [
        (b"q", ["q"]),
        (b"/ab\r", ["/", "a", "b", "enter"]),
        (b"\x1b[A\x1b[B\x1bOA", ["up", "down", "up"]),
        (b"\x1b[5~\x1b[6~\x06\x02", ["pgup", "pgdn", "pgdn", "pgup"]),
        (b"\x1b[H\x1b[4~\x1bOF", ["home", "end", "end"]),
        (b"\x1bOP\x1b[11~\x1b[[A\x1b[21~", ["f1", "f1", "f1", "f10"]),
        (b"\x7f\x08\x15\x17\x0c", ["backspace", "backspace", "ctrl-u", "ctrl-w", "ctrl-l"]),
        (b"\x1b[1;5Aq", ["q"]),  # Ctrl-Up has no name here
        (b"\x1bq", ["esc", "q"]),
        (b"\x1b\x1b[A", ["esc", "up"]),
        (b"\x00\x01x", ["x"]),
        ("\u00e9".encode(), ["\u00e9"]),
    ],
)
def test_what_is_sent_is_named(sent: bytes, keys: list[str]) -> None:
    assert KeyDecoder().feed(sent) == keys


def test_a_sequence_that_comes_in_parts_is_one_key() -> None:
    decoder = KeyDecoder()
    for part in (b"\x1b", b"[", b"6"):
        assert decoder.feed(part) == []
        assert decoder.waits
    assert decoder.feed(b"~") == ["pgdn"]
    assert not decoder.waits
    first, second = "\u00e9".encode()[:1], "\u00e9".encode()[1:]
    assert (decoder.feed(first), decoder.feed(second)) == ([], ["\u00e9"])


def test_a_sequence_that_goes_no_further_is_esc() -> None:
    decoder = KeyDecoder()
    assert decoder.feed(b"\x1b") == []
    assert decoder.flush() == ["esc"]
    assert decoder.flush() == []
