"""Asking the code of a BentoML service what it declares: the process that does, and its answer.

Standard library only, so that it can be asked before anything else is imported.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

MODULE = "servd.worker.describe_bento"


class DescriptionError(Exception):
    """The code could not be asked; `trace` is its own traceback."""

    def __init__(self, message: str, trace: str = "") -> None:
        self.trace = trace
        super().__init__(message)


class Description:
    """What is being asked, in a process of its own, from the moment that this is made."""

    def __init__(
        self, argv: Sequence[str], folder: str, environ: Mapping[str, str], **options: Any
    ) -> None:
        """`options` are those of Popen: whom the process runs as. Raises `DescriptionError`."""
        self.argv = tuple(argv)
        self.folder = folder
        try:
            self._process = subprocess.Popen(
                self.argv,
                cwd=folder,
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                **options,
            )
        except OSError as error:
            raise DescriptionError(f"{self.argv[0]} cannot be run: {error.strerror}") from None

    def document(self, seconds: float) -> dict[str, Any]:
        """What the code declares, once it has been imported, which may take so long.

        Raises `DescriptionError`.
        """
        try:
            said, complained = self._process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.drop()
            raise DescriptionError(f"its code was not imported within {seconds:g} s") from None
        try:
            found: dict[str, Any] = json.loads(said)
            if "error" not in found:
                return found
        except ValueError:
            status = f"exit status {self._process.returncode}"
            last = (complained.strip().splitlines() or [status])[-1]
            raise DescriptionError(last) from None
        raise DescriptionError(found["error"], found.get("trace") or "")

    def drop(self) -> None:
        """Nobody wants to know any more."""
        if self._process.poll() is None:
            self._process.kill()
            with contextlib.suppress(OSError, ValueError):
                self._process.communicate()
