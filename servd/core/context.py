"""The request that the running code answers: what the worker knows, and `servd.depends` carries on.

Standard library only: it is part of every worker.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Protocol


class CallingRequest(Protocol):
    """A request that makes calls to dependencies."""

    def handed_on(self) -> list[tuple[bytes, bytes]]:
        """Headers for the calls that it makes: its id, its trace, its baggage."""

    def remaining(self) -> float | None:
        """Seconds until its deadline, negative beyond it; None without one."""


calling_request: ContextVar[CallingRequest | None] = ContextVar("servd_request", default=None)
"""Set by the worker for each request, in threads of the pool too."""
