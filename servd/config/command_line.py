"""Splits a command that is written as one text, as a shell would, and refuses shell syntax."""

from __future__ import annotations

import json
import re
import shlex

from servd.config.scalars import shown, wrong

_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")


def split_command(value: object) -> object:
    """Returns the words of a text; other values as they are. Raises `PydanticCustomError`."""
    if not isinstance(value, str):
        return value
    try:
        words = tuple(shlex.split(value))
    except ValueError:
        raise wrong(f"{shown(value)} has an unclosed quote") from None
    syntax = _shell_syntax(value) or (words and _ASSIGNMENT.match(words[0]) and words[0])
    if syntax:
        line = f'["sh", "-c", {json.dumps(value, ensure_ascii=False)}]'
        raise wrong(f"{syntax} needs a shell, and servd runs commands without one: write {line}")
    return words


def _shell_syntax(text: str) -> str:
    """Returns the first shell syntax outside of quotes, or ""."""
    quote, skip = "", False
    for index, character in enumerate(text):
        rest = text[index:]
        if skip:
            skip = False
        elif character == "\\" and quote != "'":
            skip = True
        elif character in "\"'" and quote in ("", character):
            quote = "" if quote else character
        elif quote != "'" and (found := re.match(r"\$\(|\$\w+|\$\{|`", rest)):
            return {"$(": "$(...)", "${": "${...}", "`": "`...`"}.get(found[0], found[0])
        elif not quote and (found := re.match(r"&&|\|\||>>|<<|[|&;<>()]", rest)):
            return found[0]
        elif not quote and character == "~" and (index == 0 or text[index - 1].isspace()):
            return "~"
    return ""
