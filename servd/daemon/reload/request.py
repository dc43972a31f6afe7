"""Requests for reloads, and their reports."""

from __future__ import annotations

import asyncio
import time
from dataclasses import field
from typing import Any, Literal

from servd.core.errors import ServdError
from servd.core.quick_dataclass import dataclass
from servd.plan.change import Change
from servd.plan.overrides import EndedOverride, FollowLoad, ManualAction
from servd.plan.render_changes import SettingRow

Outcome = Literal["applied", "unchanged", "invalid", "rolled_back"]


@dataclass(frozen=True, slots=True)
class ReloadRequest:
    """What a reload does: read the configuration again, or only `certificates`; replace
    unchanged services too (those in `roll`, or all); apply a manual action, or follow the load
    (`act`).

    `seen` are the tags that the caller knows, of what runs or of a plan: if another is in force, or
    another would come of the files, nothing is done.

    One that comes `now` does not wait for requests that two draining generations answer.

    A caller waits for the outcome if it `wants_report`; `asked` is when the request was made.
    Nobody asked for one that `is_retry`: it logs only warnings that are new.
    """

    why: str
    read: bool = True
    certificates: bool = False
    roll: frozenset[str] = frozenset()
    roll_all: bool = False
    act: ManualAction | FollowLoad | None = None
    seen: frozenset[str] | None = None
    now: bool = False
    wants_report: bool = False
    is_retry: bool = False
    asked: float = field(default_factory=time.monotonic, compare=False)

    def joins(self, other: ReloadRequest) -> bool:
        """Whether one reload may answer both; a manual action must not fail because of a file."""
        if any(request.act or request.seen is not None for request in (self, other)):
            return False
        return (self.read, self.certificates) == (other.read, other.certificates)

    @property
    def by_hand(self) -> bool:
        """Whether it concerns only what runs, not what files say."""
        return not (self.read or self.certificates)

    @property
    def is_plain(self) -> bool:
        """Whether a caller wants the configuration to be applied, and nothing else."""
        return (
            self.read
            and self.wants_report
            and not (self.roll or self.roll_all)
            and self.seen is None
        )

    def joined(self, other: ReloadRequest) -> ReloadRequest:
        """Returns both requests as one."""
        is_named = f", {other.why}," in f", {self.why},"
        return ReloadRequest(
            why=self.why if is_named else f"{self.why}, {other.why}",
            read=self.read,
            certificates=self.certificates,
            roll=self.roll | other.roll,
            roll_all=self.roll_all or other.roll_all,
            now=self.now or other.now,
            wants_report=self.wants_report or other.wants_report,
            is_retry=self.is_retry and other.is_retry,
            asked=max(self.asked, other.asked),
        )


class OutdatedError(ServdError):
    """The running state or the files differ from what the caller has seen."""


@dataclass(frozen=True, slots=True)
class ReloadReport:
    """The outcome of a reload.

    `error` says in one line why it failed, `details` are all errors of an invalid configuration
    with their places, `last_lines` the last output of a failed worker. `restart_needed` are keys
    that only a restart of the daemon applies, `by_hand_ends` are the manual changes that it ends,
    `since` is when the current state was applied. `drains` finish when all old workers have exited.
    """

    outcome: Outcome
    at: str
    why: str
    changes: tuple[Change, ...] = ()
    settings: tuple[SettingRow, ...] = ()
    error: str | None = None
    details: tuple[str, ...] = ()
    service: str | None = None
    last_lines: tuple[str, ...] = ()
    restart_needed: tuple[str, ...] = ()
    by_hand_ends: tuple[EndedOverride, ...] = ()
    since: str = ""
    seconds: float = 0.0
    drains: tuple[asyncio.Task[Any], ...] = field(default=(), repr=False)
