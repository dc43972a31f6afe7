"""The outcome of an edit that a file watch took first, for the caller who asks for it next."""

from __future__ import annotations

import time
from dataclasses import replace

from servd.daemon.reload.request import ReloadReport, ReloadRequest


class UntoldReport:
    """Keeps the last reload of the configuration that nobody waited for, until a caller asks for a
    reload: `servd reload` reports the outcome of an edit, whether it or a file watch was first.
    """

    def __init__(self) -> None:
        self._report: ReloadReport | None = None
        self._digest = ""
        self._ended = 0.0

    def answer(self, request: ReloadRequest, report: ReloadReport, digest: str) -> ReloadReport:
        """Returns what to tell of a reload that has ended with `report`. `digest` is that of the
        configuration that it read.
        """
        if not request.read:
            return report
        if not request.wants_report:
            if report.outcome != "unchanged":
                self._report, self._digest, self._ended = report, digest, time.monotonic()
            return report
        untold, self._report = self._report, None
        if report.outcome != "unchanged" or untold is None or untold.outcome != "applied":
            return report
        return replace(untold, since=report.since)

    def may_answer(self, request: ReloadRequest) -> bool:
        """Whether a request came while the same reload was under way, and that was rolled back: to
        try it again would take as long, and fail as well.
        """
        return (
            self._report is not None
            and self._report.outcome == "rolled_back"
            and request.is_plain
            and request.asked < self._ended
        )

    def take(self, digest: str) -> ReloadReport | None:
        """Returns the report if the configuration is still the one that it is about."""
        if digest != self._digest:
            return None
        untold, self._report = self._report, None
        return untold
