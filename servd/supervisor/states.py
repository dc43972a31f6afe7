"""The states of a service, as a table over observations of its workers. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from servd.core.quick_dataclass import dataclass

State = Literal[
    "waiting", "starting", "ready", "rolling", "degraded", "backoff",
    "stopping", "stopped", "failed", "completed", "exited",
]  # fmt: skip

BAD_STATES = frozenset({"failed", "backoff", "degraded"})
"""States that are logged as warnings."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What is observed of a service's current generation.

    `rolls`: a change is in progress, with no fewer workers than wanted. `once_ready`: the service
    was ready before. `unwell`: a worker fails its probes. `pausing`: a worker waits in back-off.
    `given_up`: a worker is missing that will not be started again. `exited`: all have ended by
    themselves, as the policy wants it.
    """

    wanted: int
    ready: int
    is_ready: bool = False
    completed: bool = False
    rolls: bool = False
    once_ready: bool = False
    unwell: bool = False
    pausing: bool = False
    given_up: bool = False
    exited: bool = False


_RULES: tuple[tuple[State, Callable[[Observation], bool]], ...] = (
    ("rolling", lambda seen: seen.rolls),
    ("completed", lambda seen: seen.completed),
    ("stopped", lambda seen: seen.wanted == 0),
    ("ready", lambda seen: seen.is_ready),
    ("exited", lambda seen: seen.exited),
    ("failed", lambda seen: seen.given_up and seen.ready == 0),
    ("degraded", lambda seen: seen.once_ready and (seen.ready > 0 or seen.unwell)),
    ("backoff", lambda seen: seen.pausing and seen.ready == 0),
    ("starting", lambda seen: seen.ready == 0),
)
"""The first rule that holds gives the state."""


def next_state(state: State, seen: Observation) -> State:
    """The state after `state`. Back-off includes the next start, until a worker is ready."""
    found = next((name for name, holds in _RULES if holds(seen)), state)
    return state if found == "starting" and state == "backoff" else found
