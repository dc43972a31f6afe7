"""The files of services into which goes what their workers print, as they print it."""

from __future__ import annotations

from typing import Protocol

from servd.config.service import ServiceLog
from servd.plan.host import Account


class PrintFile(Protocol):
    """One file, which workers of one service or of several share."""

    def put(self, line: bytes, count: int = 1) -> None:
        """Queues a line without its newline, or `count` lines with newlines between them."""


class PrintFiles(Protocol):
    """All files that are in use."""

    def acquire(self, options: ServiceLog, account: Account | None) -> PrintFile | None:
        """Returns the file that `options` name, open; None if they name none, or if it cannot be
        opened, which is logged.
        """

    def release(self, file: PrintFile | None) -> None:
        """Gives a file back; one without other users is closed."""


class NoPrintFiles:
    """No service has a file."""

    def acquire(self, options: ServiceLog, account: Account | None) -> PrintFile | None:
        """Returns None."""
        return None

    def release(self, file: PrintFile | None) -> None:
        """Does nothing."""
