"""What should run, as one immutable value: the reloader owns it, all others read it."""

from __future__ import annotations

from collections.abc import Mapping

from servd.config.load import Loaded
from servd.core.quick_dataclass import dataclass
from servd.plan.model import Plan
from servd.plan.overrides import Override


@dataclass(frozen=True, slots=True)
class DesiredState:
    """`loaded` is the configuration in force since `loaded_at`, `declared` what it says should run,
    `overrides` what was set manually, and `plan` both together, with GPUs assigned. `revision`
    increases with every applied change.
    """

    loaded: Loaded
    declared: Plan
    overrides: Mapping[str, Override]
    plan: Plan
    loaded_at: str
    revision: int = 1
