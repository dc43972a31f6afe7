"""The occasions on which changes are applied, and what differs between them."""

from __future__ import annotations

from servd.core.quick_dataclass import dataclass
from servd.supervisor.apply.inherit import InheritedState


@dataclass(frozen=True, slots=True)
class ApplyMode:
    """How changes are applied.

    `tolerant`: a service that cannot start fails alone, its dependents wait, and nothing is undone.
    `retry`: services that had failed and did not change are started again. `announce`: the point of
    no return is logged. `inherited`: what the previous daemon leaves to this one.
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
    """All or nothing, next to the previous daemon, which continues until all is ready here."""
    return ApplyMode(inherited=inherited)
