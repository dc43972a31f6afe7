"""Finds and reads the files of a configuration; every later step works on values."""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Protocol

from servd.core.basedir import base_dir
from servd.core.diagnostics import Diagnostic, Place
from servd.core.errors import ConfigError
from servd.core.exhaustion import glob_or_raise
from servd.core.quick_dataclass import dataclass

EXTENSIONS = (".toml", ".yaml", ".yml", ".json")
STDIN, STDIN_NAME = "-", "<standard input>"
"""Names of standard input on the command line and in messages."""

Format = Literal["toml", "yaml", "json"]

_LOOKS_LIKE_YAML = re.compile(rb"(\s*(#.*|---)?\n)*\s*(\{|[\w\"'.-]+ *:(\s|$))")
MAX_FILE_BYTES = 16 * 2**20
"""Largest config file or `${file:}` that is read."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file of the configuration: its path as given, and its bytes."""

    file: str
    content: bytes


class Files(Protocol):
    """The file system for loading. Paths may be relative to the working directory."""

    def read(self, path: str) -> bytes:
        """Returns the content of a file. Raises OSError."""

    def glob(self, pattern: str) -> list[str]:
        """Returns the matching files, sorted. Raises OSError."""


class Disk:
    """The real file system."""

    def read(self, path: str) -> bytes:
        """Returns the content of a file. Raises OSError, also for one that is too large."""
        path = os.path.join(base_dir(), path)
        with open(path, "rb") as file:  # maybe a pipe: shells and stores of secrets pass texts so
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise OSError(27, f"the file is larger than {MAX_FILE_BYTES // 2**20} MiB")
        return content

    def glob(self, pattern: str) -> list[str]:
        """Returns the matching files, sorted. Raises OSError on resource exhaustion."""
        return [path for path in glob_or_raise(pattern) if os.path.isfile(path)]


def config_error(message: str, hint: str = "", file: str = "servd") -> ConfigError:
    """Returns the error for a mistake without a place inside a file."""
    return ConfigError([Diagnostic(Place(file), message, hint=hint, code="file")])


def find_config(explicit: str | None, environ: Mapping[str, str]) -> str:
    """Returns the file or folder to load. Raises `ConfigError` for none, and for two candidates."""
    if chosen := explicit or environ.get("SERVD_CONFIG"):
        return chosen
    user = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME", "/"), ".config")
    here = [f"servd{extension}" for extension in (".toml", ".yaml", ".yml")]
    elsewhere = (os.path.join(user, "servd", "servd.toml"), "/etc/servd/servd.toml")
    for candidates in (here, *([each] for each in elsewhere)):
        present = [path for path in candidates if os.path.exists(path)]
        if len(present) > 1:
            raise config_error(f"found both {' and '.join(present)}", "choose one with --config")
        if present:
            return present[0]
    raise config_error(
        "no configuration found: expected servd.toml, servd.yaml or servd.yml in this folder",
        "run `servd init` to create one, or use --config",
    )


def members(path: str) -> list[str]:
    """Returns `path`, or the files of the folder `path`, sorted. Raises `ConfigError` for none."""
    where = os.path.join(base_dir(), path)
    if not os.path.exists(where):
        raise config_error("no such file or folder", file=path)
    if not os.path.isdir(where):
        return [path]
    try:
        names = sorted(os.listdir(where))
    except OSError as error:
        raise config_error(f"cannot read this folder: {error.strerror}", file=path) from None
    found = [name for name in names if name.endswith(EXTENSIONS) and not name.startswith(".")]
    if not found:
        raise config_error("the folder contains no *.toml, *.yaml, *.yml or *.json", file=path)
    return [os.path.join(path, name) for name in found]


def sources_of(path: str, files: Files | None = None) -> list[Source]:
    """Returns the file at `path`, the files of a folder, or standard input for "-". Raises
    `ConfigError` when there is nothing to read.
    """
    if path == STDIN:
        return [Source(STDIN_NAME, _standard_input())]
    files = files or Disk()
    found: list[Source] = []
    for file in members(path):
        try:
            found.append(Source(file, files.read(file)))
        except OSError as error:
            raise config_error(f"cannot read this file: {error.strerror}", file=file) from None
    return found


@functools.cache
def _standard_input() -> bytes:
    """Returns all of it, once: a command may load its configuration twice."""
    return sys.stdin.buffer.read(MAX_FILE_BYTES + 1)


def format_of(file: str | Source) -> Format:
    """Returns the language of a file by its name, TOML by default; that of standard input by its
    first line that is not a comment.
    """
    name = file if isinstance(file, str) else file.file
    if isinstance(file, Source) and name == STDIN_NAME:
        return "yaml" if _LOOKS_LIKE_YAML.match(file.content) else "toml"
    suffix = Path(name).suffix.lower()
    return "json" if suffix == ".json" else "yaml" if suffix in (".yaml", ".yml") else "toml"


def is_yaml(source: Source) -> bool:
    """Returns whether a file is read as YAML, which JSON is too."""
    return format_of(source) != "toml"
