"""Output of the command line: results on stdout, messages on stderr."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from servd.core.diagnostics import Diagnostic, render
from servd.core.errors import ConfigError, ServdError
from servd.core.printable import visible

if TYPE_CHECKING:
    from servd.cli.render.line import Style, StyledLine
    from servd.config.load import Loaded


def colours(stream: Any) -> bool:
    """Whether a stream is a terminal with colours, and NO_COLOR is not set."""
    return moves(stream) and not os.environ.get("NO_COLOR")


def moves(stream: Any) -> bool:
    """Whether a stream is a terminal that understands control sequences."""
    return bool(stream.isatty()) and os.environ.get("TERM", "") != "dumb"


def style_of(stream: Any) -> Style:
    """Returns what lines may consist of on a stream."""
    return "colour" if colours(stream) else "attributes" if moves(stream) else "plain"


def width_of(stream: Any) -> int:
    """Returns the width of lines on a stream: of its terminal, of $COLUMNS, or 80."""
    with contextlib.suppress(OSError, ValueError):
        if columns := os.get_terminal_size(stream.fileno()).columns:
            return columns
    return shutil.get_terminal_size(fallback=(80, 24)).columns


def print_lines(lines: Iterable[StyledLine]) -> None:
    """Prints lines on stdout."""
    style = style_of(sys.stdout)
    click.echo("\n".join(line.text(style) for line in lines), color=True)


def say(message: str, *, styled: bool = False) -> None:
    """Prints a message to stderr, without control characters unless it is `styled`."""
    click.echo(message if styled else visible(message), err=True)


def write_new(path: str, text: str, *, force: bool) -> None:
    """Writes a file, or stdout for "-". Raises `ServdError`, also if it exists without `force`."""
    if path == "-":
        click.echo(text, nl=False)
        return
    if os.path.exists(path) and not force:
        raise ServdError(f"{path} already exists: use --force to overwrite it")
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ServdError(f"cannot write {path}: {error.strerror}") from None
    say(f"wrote {path}")


def cut(text: str, width: int) -> str:
    """Shortens a text to `width` characters, with an ellipsis."""
    return text if len(text) <= width else f"{text[: max(0, width - 1)]}…"


def workers(count: int) -> str:
    """Formats a number of workers: `1 worker`, `2 workers`."""
    return f"{count} worker{'' if count == 1 else 's'}"


def print_json(value: Any) -> None:
    """Prints a result for programs."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def in_brief(changes: Sequence[Mapping[str, Any]]) -> str:
    """Formats changes: `~ web roll, ~ api scale 2 -> 4, - old remove`."""
    return ", ".join(f"{c['sign']} {c['service']} {c['kind']}{_scaled(c['keys'])}" for c in changes)


def _scaled(keys: Sequence[Mapping[str, Any]]) -> str:
    return "".join(f" {k['before']} -> {k['after']}" for k in keys if k["key"] == "workers")


def say_restart_needed(keys: Sequence[str]) -> None:
    """Names the keys that a reload cannot apply."""
    for key in keys:
        say(f"{key} takes effect when servd is restarted")


def show_error(error: ServdError) -> None:
    """Prints an error; a configuration error with its places."""
    loaded = getattr(error, "loaded", None)
    if loaded is not None:  # a LoadError, whose module need not be imported
        show_diagnostics(loaded)
    elif isinstance(error, ConfigError):
        for diagnostic in error.diagnostics:
            say(diagnostic.summary())
    else:
        say(f"servd: {error}")


def show_diagnostics(loaded: Loaded) -> None:
    """Prints every error and warning with its line, then the number of errors."""
    for diagnostic in loaded.diagnostics:
        coloured = colours(sys.stderr)
        say(render(diagnostic, loaded.texts, colour=coloured), styled=coloured)
    if loaded.errors:
        count = len(loaded.errors)
        say(f"{count} error{'' if count == 1 else 's'} in {loaded.path}")


def diagnostic_json(diagnostic: Diagnostic) -> dict[str, Any]:
    """Returns a diagnostic for programs."""
    place = {key: getattr(diagnostic.place, key) for key in ("file", "line", "column")}
    keys = ("severity", "code", "path", "message", "hint", "trace")
    return place | {key: getattr(diagnostic, key) for key in keys}
