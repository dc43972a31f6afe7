"""Reads `env_file`, as python-dotenv does."""

from __future__ import annotations

import io

from servd.core.regular_file import open_regular


class EnvFileError(ValueError):
    """A line is not NAME=value. The message gives its number, never its content."""


def read_env_file(path: str) -> dict[str, str]:
    """Returns a file's variables. Raises OSError, UnicodeDecodeError and `EnvFileError`."""
    with io.TextIOWrapper(open_regular(path), encoding="utf-8") as file:
        return parse_env_file(file.read(), path)


def parse_env_file(text: str, name: str = "env_file") -> dict[str, str]:
    """Returns the variables of `text`. Raises `EnvFileError`."""
    from dotenv import dotenv_values
    from dotenv.parser import parse_stream

    for binding in parse_stream(io.StringIO(text)):
        no_value = binding.key is not None and binding.value is None
        if binding.error or no_value or "\0" in binding.original.string:
            raise EnvFileError(f"{name}:{binding.original.line}: expected NAME=value")
    found = dotenv_values(stream=io.StringIO(text))
    return {variable: value for variable, value in found.items() if value is not None}
