"""One change on its way: what every kind of step can be told.

The moves of the commit are made for all changes of a reload together: first whatever may accept
beside the old begins to (`accept`, which may still fail), then everything old stops accepting and
drains (`retire_old`), then what had to wait for that accepts (`accept_late`).
"""

from __future__ import annotations

from servd.plan.change import Change
from servd.plan.model import ServicePlan
from servd.supervisor.generation import Generation
from servd.supervisor.service import ManagedService


class Step:
    """A change on its way. What a kind has no use for does nothing."""

    disruptive = False
    """Whether preparing it takes something away from what runs: such steps come last."""

    def __init__(self, change: Change, service: ManagedService) -> None:
        self.change = change
        self.service = service
        self.leaving: Generation | None = None

    async def prepare(self) -> None:
        """Everything that may fail, with the old untouched. Raises `StartError` or OSError."""

    async def accept(self) -> None:
        """Lets the new accept, where it may beside the old. Raises as `prepare`."""

    async def retire_old(self) -> None:
        """The old accepts no more, and drains in the background."""

    async def accept_late(self) -> None:
        """Lets the new accept where it had to wait."""

    async def undo(self) -> None:
        """Removes what was prepared; the old is as it was."""

    async def wait_ended(self) -> None:
        """Returns when what gave way has ended."""
        if self.leaving is not None:
            await self.leaving.wait_ended()

    @property
    def after(self) -> ServicePlan:
        """What the service shall be."""
        assert self.change.after is not None
        return self.change.after
