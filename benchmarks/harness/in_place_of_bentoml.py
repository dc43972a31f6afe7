"""A plugin of pytest: servd serves in place of BentoML, and nothing else changes.

`bentoml.serve(...)` becomes `servd.serve(..., threaded=True)`: both return while the server runs,
BentoML's before it is ready, so that the machine may be slow. `python -m bentoml serve ...` becomes
`python -m servd serve ...`.
"""

from __future__ import annotations

import importlib
import subprocess
from collections.abc import Sequence
from typing import Any

START_SECONDS = 600.0
STARTS_BENTOML = ["-m", "bentoml", "serve"]

_started: list[str] = []
"""How, for each time that servd was started."""


def in_place(argv: Any) -> Any:
    """Returns a command that starts BentoML's server as one that starts servd; others as they
    are.
    """
    if isinstance(argv, Sequence) and list(argv[1:4]) == STARTS_BENTOML:
        return [argv[0], "-m", "servd", *argv[3:]]
    return argv


class Popen(subprocess.Popen[Any]):
    """What starts a program."""

    def __init__(self, args: Any, *more: Any, **options: Any) -> None:
        replaced = in_place(args)
        if replaced is not args:
            _started.append("servd serve")
        super().__init__(replaced, *more, **options)


def pytest_configure() -> None:
    """Replaces both before a test is imported."""
    import servd

    bentoml: Any = importlib.import_module("bentoml")

    def serve(*given: Any, **options: Any) -> Any:
        _started.append("servd.serve")
        return servd.serve(*given, threaded=True, start_timeout=START_SECONDS, **options)

    bentoml.serve = serve
    subprocess.Popen = Popen  # type: ignore[misc]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Says how often servd was in BentoML's place."""
    for way in sorted(set(_started)):
        terminalreporter.write_line(f"{way} in place of BentoML's: {_started.count(way)} times")
