"""The errors that servd raises on purpose, with the exit status of a command that fails with them.

::

    ServdError                errors that users can act on; shown without a traceback
    ├── ConfigError           the configuration is invalid; has every mistake with its place
    ├── StartError            something is unavailable at start: an address, a runtime folder
    ├── UsageError            the arguments of a command are invalid
    └── DependencyError       `servd.depends` has no address for a dependency
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from servd.core.diagnostics import Diagnostic


class Exit(IntEnum):
    """Exit statuses of the command line; 69 and 78 are those of sysexits(3)."""

    OK = 0
    FAILED = 1
    USAGE = 2
    START_FAILED = 3
    NO_DAEMON = 69
    CONFIG = 78


class ServdError(Exception):
    """Base of all errors whose message is for users."""

    exit_status: ClassVar[Exit] = Exit.FAILED


class ConfigError(ServdError):
    """The configuration is invalid; `diagnostics` holds every mistake in the order of the files."""

    exit_status = Exit.CONFIG

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        super().__init__("\n".join(diagnostic.summary() for diagnostic in self.diagnostics))


class StartError(ServdError):
    """An address, a runtime folder or a program was unavailable when the daemon needed it."""


class UsageError(ServdError):
    """A command's arguments contradict each other or name something that does not exist."""

    exit_status = Exit.USAGE


class DependencyError(ServdError):
    """`servd.depends` has no address for a dependency."""
