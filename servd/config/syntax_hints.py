"""Says what a person did who wrote something that is no TOML, or no YAML. Values are not repeated:
they may be secrets, which only a file that can be read tells apart.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

QUOTES = "\u201c\u201d\u201e\u201f\u2018\u2019\u201a\u201b\u00ab\u00bb\u2032\u2033"
"""Typographic quotes, and the signs of minutes and seconds."""

_WORDS = {
    "True": "true", "False": "false", "yes": "true", "no": "false", "on": "true", "off": "false",
    "None": '""', "null": '""', "nil": '""',
}  # fmt: skip
_BARE_VALUE = re.compile(r"=\s*([A-Za-z_./~@][^\"'#\[\]{},]*?)\s*(?:[#,\]}].*)?$")
_NUMBER_WITH_ZERO = re.compile(r"=\s*[+-]?(0\d+)\b")


class Mistake(NamedTuple):
    """What is wrong, and what would be right; `column` counts from 1 (0: where the parser says)."""

    message: str
    hint: str = ""
    column: int = 0


def toml_mistake(line: str, column: int, said: str) -> Mistake:
    """Returns what is wrong with a line of TOML, about which the parser `said` something."""
    return (
        _odd_character(line, column)
        or _open_table(line, said)
        or _wrong_pair(line)
        or _wrong_value(line, column, said)
        or Mistake(f"invalid TOML: {said[:1].lower()}{said[1:]}")
    )


def _odd_character(line: str, column: int = 0) -> Mistake | None:
    """A character outside of quotes and comments that looks like another one."""
    quote = ""
    for at, character in enumerate(line, 1):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character == "#":
            return None
        elif character in QUOTES:
            return Mistake(f"{character} is a typographic quote", 'write "', at)
        elif ord(character) > 127:
            name = unicodedata.name(character, f"U+{ord(character):04X}")
            if character.isspace() or unicodedata.category(character) == "Cf":
                return Mistake(f"here is a blank that cannot be seen: {name}", "delete it", at)
            return Mistake(f'"{character}" is {name}, which cannot stand here', "retype it", at)
    return None


def _open_table(line: str, said: str) -> Mistake | None:
    if "key part" in said and re.search(r"[{,]\s*(#.*)?$", line):
        return Mistake(
            "a table in braces has to stand on one line",
            "write it on one line, or as a table of its own: [services.web.env]",
        )
    if said.startswith("Expected ']'"):
        return Mistake("the name of a table ends with ]")
    return None


def _wrong_pair(line: str) -> Mistake | None:
    pair = re.match(r"\s*([\w.-]+)\s*(==|:=|:|=>)\s*", line)
    if pair is not None:
        return Mistake(
            f"{pair[2]} stands between a key and its value", "write =", pair.start(2) + 1
        )
    words = re.match(r"\s*([\w-]+(?: +[\w-]+)+)\s*=", line)
    if words is not None:
        return Mistake("a key is one word", f'write "{words[1]}" in quotes', words.start(1) + 1)
    if re.match(r"\s*- ", line):
        return Mistake("this is a list of YAML", "write key = [..., ...], or name the file .yaml")
    return None


def _wrong_value(line: str, column: int, said: str) -> Mistake | None:
    if re.search(r"=\s*(#.*)?$", line):
        return Mistake("the value is missing")
    if zero := _NUMBER_WITH_ZERO.search(line):
        return Mistake("a number cannot begin with 0", "write it in quotes", zero.start(1) + 1)
    if bare := _BARE_VALUE.search(line):
        word, at = bare[1], bare.start(1) + 1
        if word in _WORDS:
            return Mistake(f"{word} is no value of TOML", f"write {_WORDS[word]}", at)
        return Mistake("a text stands in quotes", 'write " before and after it', at)
    value = line[: column - 1].partition("=")[2]
    if line.rstrip().endswith(",") and column >= len(line.rstrip()):
        return Mistake("a comma ends no line here", "delete it", len(line.rstrip()))
    if value.count('"') % 2 and not line[column - 1 :].strip():
        return Mistake("the quote has no end", 'write " at the end of the text')
    if value.strip().startswith("'") and "'" in line[column - 1 :]:
        return Mistake("the text ends at its second quote", "write it in double quotes", column)
    if "{" in value and re.match(r"\s*}", line[column - 1 :]) and value.rstrip().endswith(","):
        return Mistake("a comma cannot stand before }", "delete it", column - 1)
    if "illegal character '\\n'" in said.lower():
        return Mistake("the quote has no end", 'write " at the end of the text')
    if "unescaped" in said.lower():
        return Mistake("a backslash begins an escape in double quotes", "write it in single quotes")
    if "Expected '='" in said:
        return Mistake("a key has to be followed by = and a value")
    if "newline or end of document" in said:
        return Mistake("something follows the value", "begin a line with each key")
    return None


def yaml_mistake(line: str, column: int, said: str) -> Mistake:
    """Returns what is wrong with a line of YAML, about which the parser `said` something."""
    rest = line[column - 1 :]
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return Mistake("a tab cannot indent", "write blanks", line.index("\t") + 1)
    if odd := _odd_character(line) if "cannot start any token" in said else None:
        return odd
    if "cannot start any token" in said and rest[:1] in "@`%":
        return Mistake(f"a text cannot begin with {rest[0]}", "write it in quotes")
    if "mapping values are not allowed" in said:
        inner = line[: column - 1].partition(":")[2].strip()
        if inner:
            return Mistake('a text with ": " in it has to stand in quotes')
        return Mistake("this line is indented deeper than the key above it")
    if "<block end>" in said:
        return Mistake("this line is indented less than its neighbours, and more than their table")
    if "another document" in said:
        return Mistake("a file holds one document", "delete the line ---")
    if "undefined alias" in said:
        return Mistake(f"there is no anchor {said.rpartition(' ')[2]} above this line")
    if "expected ',' or" in said and "{" in rest[:1]:
        return Mistake("${...} has to stand in quotes inside of { }", 'write "${...}"')
    if "end of stream" in said or "<stream end>" in said:
        return Mistake("a quote or a bracket has no end")
    return Mistake(f"invalid YAML: {said}")
