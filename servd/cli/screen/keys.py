"""Names of the keys that a terminal sends. Pure."""

from __future__ import annotations

import codecs
import re

_SEQUENCE = re.compile(r"\x1b(?:\[\[[A-E]|\[[0-9;?]*[ -/]*[@-~]|O[@-~])")
_UNFINISHED = re.compile(r"\x1b(?:\[\[?[0-9;?]*[ -/]*|O)?$")

_NAMES = {
    "\x1b[A": "up", "\x1b[B": "down", "\x1b[C": "right", "\x1b[D": "left",
    "\x1bOA": "up", "\x1bOB": "down", "\x1bOC": "right", "\x1bOD": "left",
    "\x1b[5~": "pgup", "\x1b[6~": "pgdn", "\x1b[H": "home", "\x1b[F": "end",
    "\x1bOH": "home", "\x1bOF": "end", "\x1b[1~": "home", "\x1b[4~": "end",
    "\x1b[7~": "home", "\x1b[8~": "end", "\x1bOP": "f1", "\x1b[11~": "f1", "\x1b[[A": "f1",
    "\x1b[21~": "f10", "\r": "enter", "\n": "enter", "\x7f": "backspace", "\x08": "backspace",
    "\x02": "pgup", "\x06": "pgdn", "\x0c": "ctrl-l", "\x15": "ctrl-u", "\x17": "ctrl-w",
}  # fmt: skip


class KeyDecoder:
    """Turns what a terminal sends into names of keys; a character is its own name."""

    def __init__(self) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="ignore")
        self._left = ""

    @property
    def waits(self) -> bool:
        """Whether a sequence has begun: what comes next decides which key it is."""
        return bool(self._left)

    def feed(self, data: bytes) -> list[str]:
        """Returns the keys that are complete."""
        text, self._left = self._left + self._utf8.decode(data), ""
        keys: list[str] = []
        while text:
            if _UNFINISHED.match(text):
                self._left = text
                break
            found = _SEQUENCE.match(text)
            taken = found[0] if found else text[0]
            text = text[len(taken) :]
            keys += _key(taken)
        return keys

    def flush(self) -> list[str]:
        """Returns the key of a sequence that goes no further: Esc."""
        begun, self._left = self._left, ""
        return ["esc"] if begun else []


def _key(taken: str) -> list[str]:
    """Returns the name of a key, or nothing for one without a name here."""
    if taken in _NAMES:
        return [_NAMES[taken]]
    if taken == "\x1b":
        return ["esc"]
    return [taken] if taken.isprintable() else []
