"""One change in progress: the moves that every kind of step has.

The moves of a commit are made for all changes of a reload together: first all that can accept next
to the old start accepting (`accept`, which can still fail), then everything old stops accepting and
drains (`retire_old`), then those that had to wait for this accept (`accept_late`).
"""

from __future__ import annotations

from typing import Literal

from servd.plan.change import Change
from servd.plan.model import ServicePlan
from servd.supervisor.generation import Generation
from servd.supervisor.service import ManagedService


class Step:
    """Base class of one change in a reload. Moves do nothing by default."""

    disruption: Literal[0, 1, 2] = 0
    """What preparing it does to what runs: 0 nothing, 1 some of it ends, 2 it is interrupted. Less
    comes first, so that a failure interrupts nothing.
    """

    interrupted: Generation | None = None
    """What `prepare` has interrupted, and `undo` starts again."""

    def __init__(self, change: Change, service: ManagedService) -> None:
        self.change = change
        self.service = service
        self.leaving: Generation | None = None

    async def prepare(self) -> None:
        """Does all that can fail, with the old untouched. Raises `StartError` or OSError."""

    async def accept(self) -> None:
        """Lets the new accept, if it can next to the old. Raises as `prepare`."""

    async def retire_old(self) -> None:
        """The old stops accepting, and drains in the background."""

    async def accept_late(self) -> None:
        """Lets the new accept if it had to wait."""

    async def undo(self) -> None:
        """Removes what was prepared; the old is as before."""

    async def wait_ended(self) -> None:
        """Returns when what was replaced has ended."""
        if self.leaving is not None:
            await self.leaving.wait_ended()

    @property
    def after(self) -> ServicePlan:
        """The plan that is applied to the service."""
        assert self.change.after is not None
        return self.change.after
