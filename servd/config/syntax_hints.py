"""Explains syntax errors of TOML and YAML. Messages repeat no values: they may be
secrets, which only a valid file tells apart.
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
    """What is wrong, and a fix. `column` counts from 1 (0: the place that the parser reports)."""

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
                return Mistake(f"invisible character: {name}", "delete it", at)
            return Mistake(f'unexpected character "{character}": {name}', "retype it", at)
    return None


def _open_table(line: str, said: str) -> Mistake | None:
    if "key part" in said and re.search(r"[{,]\s*(#.*)?$", line):
        return Mistake(
            "an inline table must be on one line",
            "write it on one line, or as a separate table such as [services.web.env]",
        )
    if said.startswith("Expected ']'"):
        return Mistake("missing ] after the name of the table")
    return None


def _wrong_pair(line: str) -> Mistake | None:
    pair = re.match(r"\s*([\w.-]+)\s*(==|:=|:|=>)\s*", line)
    if pair is not None:
        return Mistake(f"expected = after the key, got {pair[2]}", column=pair.start(2) + 1)
    words = re.match(r"\s*([\w-]+(?: +[\w-]+)+)\s*=", line)
    if words is not None:
        return Mistake("a key with spaces needs quotes", f'write "{words[1]}"', words.start(1) + 1)
    if re.match(r"\s*- ", line):
        return Mistake("this is a YAML list", "write key = [..., ...], or rename the file to .yaml")
    return None


def _wrong_value(line: str, column: int, said: str) -> Mistake | None:
    if re.search(r"=\s*(#.*)?$", line):
        return Mistake("missing value")
    if zero := _NUMBER_WITH_ZERO.search(line):
        return Mistake("a number cannot begin with 0", "put it in quotes", zero.start(1) + 1)
    if bare := _BARE_VALUE.search(line):
        word, at = bare[1], bare.start(1) + 1
        if word in _WORDS:
            return Mistake(f"{word} is not a TOML value", f"write {_WORDS[word]}", at)
        return Mistake("text needs quotes", 'write " before and after it', at)
    value = line[: column - 1].partition("=")[2]
    if line.rstrip().endswith(",") and column >= len(line.rstrip()):
        return Mistake("unexpected comma at the end of the line", "delete it", len(line.rstrip()))
    if value.count('"') % 2 and not line[column - 1 :].strip():
        return Mistake("unclosed quote", 'write " at the end of the text')
    if value.strip().startswith("'") and "'" in line[column - 1 :]:
        return Mistake("the text ends at the second quote", "use double quotes", column)
    if "{" in value and re.match(r"\s*}", line[column - 1 :]) and value.rstrip().endswith(","):
        return Mistake("unexpected comma before }", "delete it", column - 1)
    if "illegal character '\\n'" in said.lower():
        return Mistake("unclosed quote", 'write " at the end of the text')
    if "unescaped" in said.lower():
        return Mistake("a backslash starts an escape in double quotes", "use single quotes")
    if "Expected '='" in said:
        return Mistake("expected = and a value after the key")
    if "newline or end of document" in said:
        return Mistake("unexpected text after the value", "write each key on its own line")
    return None


def yaml_mistake(line: str, column: int, said: str) -> Mistake:
    """Returns what is wrong with a line of YAML, about which the parser `said` something."""
    rest = line[column - 1 :]
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return Mistake("tabs cannot be used for indentation", "use spaces", line.index("\t") + 1)
    if odd := _odd_character(line) if "cannot start any token" in said else None:
        return odd
    if "cannot start any token" in said and rest[:1] in "@`%":
        return Mistake(f"unquoted text cannot begin with {rest[0]}", "put it in quotes")
    if "mapping values are not allowed" in said:
        inner = line[: column - 1].partition(":")[2].strip()
        if inner:
            return Mistake('text that contains ": " needs quotes')
        return Mistake("this line is indented more than the key above it")
    if "<block end>" in said:
        return Mistake("the indentation of this line matches no line above it")
    if "another document" in said:
        return Mistake("a file can contain only one document", "delete the line ---")
    if "undefined alias" in said:
        return Mistake(f"anchor {said.rpartition(' ')[2]} is not defined above this line")
    if "expected ',' or" in said and "{" in rest[:1]:
        return Mistake("${...} needs quotes inside { }", 'write "${...}"')
    if "end of stream" in said or "<stream end>" in said:
        return Mistake("unclosed quote or bracket")
    return Mistake(f"invalid YAML: {said}")
