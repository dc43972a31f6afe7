"""How the code of an app says that its process has to be replaced. Standard library only."""

from __future__ import annotations

from collections.abc import Callable

_report: Callable[[str], None] | None = None
"""Set by servd's worker."""


def unwell(reason: str) -> None:
    """Has servd replace this worker: it accepts no more requests, finishes those that it has, and
    another one starts. For a state that only a new process mends, such as a lost device. `reason`
    is for the log. Returns at once, from any thread; elsewhere than in a worker of servd it does
    nothing.
    """
    if _report is not None:
        _report(reason)


def report_to(report: Callable[[str], None]) -> None:
    """Passes on what the code of the app says to `report`."""
    global _report
    _report = report
