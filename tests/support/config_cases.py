"""Files that are wrong, with what is said about them, and other spellings of what is right."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def _wrong_files() -> list[tuple[str, str, list[str]]]:
    """The wrong files of `wrong_files.txt`: the language, the text, and what is said, line by line
    (the place first, which has no file).
    """
    text = (Path(__file__).parents[1] / "config" / "wrong_files.txt").read_text("utf-8")
    found = []
    for block in text.split("==== ")[1:]:
        language, _, rest = block.partition("\n")
        source, _, said = rest.partition("----\n")
        found.append((language, source, said.splitlines()))
    return found


WRONG_FILES = _wrong_files()

SPELLINGS = [
    ("limits.memory", "512m", 2**29),
    ("limits.memory", "512M", 2**29),
    ("limits.memory", "1g", 2**30),
    ("limits.memory", "512Mi", 2**29),
    ("limits.memory", "1 gb", 10**9),
    ("limits.memory", "off", None),
    ("limits.memory", False, None),
    ("limits.max_age", "infinity", None),
    ("timeouts.drain", "2min", 120.0),
    ("timeouts.drain", "30 s", 30.0),
    ("timeouts.drain", "1h 30m", 5400.0),
    ("timeouts.drain", "90 seconds", 90.0),
    ("log.level", "INFO", "info"),
    ("log.level", "warn", "warning"),
    ("log.access", "off", False),
    ("log.access", "yes", True),
    ("log.access", "False", False),
    ("log.skip_paths", "/up", ("/up",)),
    ("stop_signal", "TERM", "SIGTERM"),
    ("stop_signal", "sigint", "SIGINT"),
    ("stop_signal", 3, "SIGQUIT"),
    ("umask", "0o27", "027"),
    ("cpu_affinity", "0-0", (0,)),
    ("cpu_affinity", 0, (0,)),
    ("env_passthrough", "HOME", ("HOME",)),
    ("restart", "unless-stopped", "always"),
    ("restart", "no", "never"),
    ("restart", False, "never"),
    ("restart", "on-failure", "on-failure"),
    ("rlimits.nofile", "infinity", -1),
]
"""A key of a service, what is written, and what it means."""


def spelled(key: str, written: object) -> dict[str, Any]:
    """A configuration with that written."""
    table, _, last = key.rpartition(".")
    inner = {table: {last: written}} if table else {last: written}
    return {"services": {"a": {"command": ["true"], **inner}}}
