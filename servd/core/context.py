"""The request that the running code handles, for `servd.depends`. Standard library only."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Protocol


class CallingRequest(Protocol):
    """A request that makes calls to dependencies."""

    def handed_on(self) -> list[tuple[bytes, bytes]]:
        """Returns the headers for its calls: request id, trace, baggage."""

    def remaining(self) -> float | None:
        """Returns the seconds until its deadline (negative once it has passed), or None."""


calling_request: ContextVar[CallingRequest | None] = ContextVar("servd_request", default=None)
"""Set by the worker for each request, also in the threads of its pool."""
