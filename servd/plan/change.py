"""One change of what runs, as a value: the input of applying."""

from __future__ import annotations

import math
from typing import Literal

from servd.core.quick_dataclass import dataclass
from servd.plan.model import ServicePlan

ChangeKind = Literal["add", "remove", "scale", "live", "roll", "switch", "rebind", "interrupt"]

Sign = Literal["+", "~", "-"]


@dataclass(frozen=True, slots=True)
class KeyChange:
    """A changed key. Secrets are masked in both values. `sign`: `+` if added, `-` if removed."""

    key: str
    before: str
    after: str
    sign: Sign = "~"


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one service. `before` is None for `add`, `after` for `remove`."""

    service: str
    kind: ChangeKind
    keys: tuple[KeyChange, ...] = ()
    why: str = ""
    before: ServicePlan | None = None
    after: ServicePlan | None = None

    @property
    def plan(self) -> ServicePlan:
        """The new service, or the old one if it is removed."""
        found = self.after or self.before
        assert found is not None
        return found

    @property
    def sign(self) -> Sign:
        """One character: `+`, `~` or `-`."""
        return "+" if self.kind == "add" else "-" if self.kind == "remove" else "~"

    @property
    def halts(self) -> bool:
        """Whether the service stops and stays stopped."""
        return self.kind == "scale" and self.plan.workers == 0

    @property
    def starts(self) -> bool:
        """Whether a stopped service starts again."""
        return self.kind == "scale" and self.before is not None and self.before.workers == 0

    @property
    def replaces(self) -> bool:
        """Whether it gets new workers instead of the old ones (or its first workers)."""
        return self.kind in ("add", "roll", "switch", "rebind", "interrupt")

    @property
    def starts_anew(self) -> bool:
        """Whether only new workers run after it."""
        return self.plan.workers > 0 and (self.replaces or self.starts)

    @property
    def batch(self) -> int:
        """Number of new workers started next to the old ones at a time (`rollout`). All of them if
        old and new must not serve together, or if none run yet.
        """
        plan, surge = self.plan, self.plan.rollout.max_surge
        if self.kind != "roll" or self.before is None or plan.is_task:
            return plan.workers
        if plan.rollout.strategy == "one-by-one":
            return 1
        if isinstance(surge, str):
            surge = math.ceil(plan.workers * float(surge.rstrip("%")) / 100)
        return max(1, min(plan.workers, surge))

    @property
    def ends_first(self) -> bool:
        """Whether the old workers end before new ones start, on sockets that stay bound."""
        replaced = self.replaces and self.before is not None and self.kind != "interrupt"
        return replaced and self.plan.never_overlaps

    @property
    def recreate_text(self) -> str:
        """Returns `(recreate: 70 GiB more are needed, 9 are free)` where GPUs are the reason."""
        reason = self.plan.rollout_reason if self.ends_first else ""
        return f"(recreate: {reason})" if reason else ""

    @property
    def notes(self) -> tuple[str, ...]:
        """Consequences to know before applying."""
        notes: list[str] = []
        if self.kind == "interrupt":
            notes.append(
                "interrupts: the command binds its own address, so it stops before it starts again"
            )
        elif self.ends_first:
            notes.append("recreate: old workers stop before new ones start; connections wait")
        if self.before is not None and any(key.key == "inputs" for key in self.keys):
            notes.append("until then it runs older inputs than the disk")
        if self.plan.is_task and self.kind != "remove":
            notes.append("runs again; a task cannot be undone")
        elif self.starts_anew and self.kind != "add" and self.batch < self.plan.workers:
            how_many = "one" if self.batch == 1 else str(self.batch)
            notes.append(f"{how_many} at a time; on failure, drained old workers start again")
        return tuple(notes)
