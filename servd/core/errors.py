"""Every error that servd raises on purpose.

::

    ServdError                what a person can act on; never shown with a traceback
    ├── ConfigError           the configuration is wrong; carries every mistake with its place
    ├── StartError            something could not be brought up (an address, a runtime folder)
    ├── UsageError            a command was called with arguments that make no sense
    └── DependencyError       `servd.depends` cannot tell where a dependency is

Each class knows the exit status that a command ends with when it meets the error.
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
    """Base of all errors that are meant for a person rather than for a debugger."""

    exit_status: ClassVar[Exit] = Exit.FAILED


class ConfigError(ServdError):
    """The configuration is not valid.

    `diagnostics` holds every mistake that was found, in the order of the files; `str()` of the
    error is their plain rendering.
    """

    exit_status = Exit.CONFIG

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        super().__init__("\n".join(diagnostic.summary() for diagnostic in self.diagnostics))


class StartError(ServdError):
    """An address, a runtime folder or a program could not be had when the daemon needed it."""


class UsageError(ServdError):
    """A command's arguments contradict each other or name something that is not there."""

    exit_status = Exit.USAGE


class DependencyError(ServdError):
    """`servd.depends` was asked for a dependency whose address is not known here."""
