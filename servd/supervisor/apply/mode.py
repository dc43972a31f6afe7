"""On which occasion changes are applied, and what differs by it."""

from __future__ import annotations

from dataclasses import dataclass

from servd.supervisor.apply.inherit import InheritedState


@dataclass(frozen=True, slots=True)
class ApplyMode:
    """`tolerant`: a service that cannot start is failed by itself, its dependents wait, and nothing
    is undone. `retry`: services that had failed and did not change are started again. `announce`:
    the point of no return is logged. `inherited`: what the previous daemon leaves, whose place is
    taken.
    """

    tolerant: bool = False
    retry: bool = True
    announce: bool = True
    inherited: InheritedState | None = None


FIRST_START = ApplyMode(tolerant=True, retry=False, announce=False)
RELOAD = ApplyMode()
MANUAL = ApplyMode(retry=False)
STOP = ApplyMode(retry=False, announce=False)


def take_over(inherited: InheritedState) -> ApplyMode:
    """Starts next to the previous daemon, all or nothing: it continues until all is ready here."""
    return ApplyMode(inherited=inherited)
