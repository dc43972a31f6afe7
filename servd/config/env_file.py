"""Parses `env_file`: lines of NAME=value, as Docker and systemd read them."""

from __future__ import annotations

import re

_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")


class EnvFileError(ValueError):
    """A line is not NAME=value. The message gives its number, never its content."""


def read_env_file(path: str) -> dict[str, str]:
    """Returns a file's variables. Raises OSError, UnicodeDecodeError and `EnvFileError`."""
    with open(path, encoding="utf-8") as file:
        return parse_env_file(file.read(), path)


def parse_env_file(text: str, name: str = "env_file") -> dict[str, str]:
    """Returns the variables of `text`. Double quotes allow escapes such as newline, single none."""
    variables: dict[str, str] = {}
    for number, written in enumerate(text.splitlines(), 1):
        line = written.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None or "\0" in line:
            raise EnvFileError(f"{name}:{number}: this line is not NAME=value")
        variables[match[1]] = _unquoted(match[2])
    return variables


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] == "'":
        return value[1:-1]
    if len(value) >= 2 and value[0] == value[-1] == '"':
        escapes = {"n": "\n", "t": "\t", '"': '"', "\\": "\\", "$": "$"}
        return re.sub(r"\\(.)", lambda m: escapes.get(m[1], m[0]), value[1:-1])
    return re.sub(r"\s+#.*", "", value)
