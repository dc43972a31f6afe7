"""What becomes of a configuration key in another engine: the types of the table in `carried`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

from servd.core.quick_dataclass import dataclass

Engine = Literal["kubernetes", "compose", "dockerfile", "ray"]
"""Engines that configurations are exported to. `dockerfile`: one container with the whole
configuration, as with `--whole` too.
"""

ENGINES: tuple[Engine, ...] = get_args(Engine)

TITLES: Mapping[Engine, str] = {
    "kubernetes": "Kubernetes",
    "compose": "Compose",
    "dockerfile": "one container",
    "ray": "Ray Serve",
}


@dataclass(frozen=True, slots=True)
class Fate:
    """`carried`: `text` says how. `inside`: servd in the container does it. `lost`: not carried
    over, and `text` is the reason. `refused`: always an error, for the reason in `text`.
    """

    kind: Literal["carried", "inside", "lost", "refused"]
    text: str = ""


INSIDE = Fate("inside")


def carried(text: str) -> Fate:
    """Returns the fate of a key that is carried over like this."""
    return Fate("carried", text)


def lost(reason: str) -> Fate:
    """Returns the fate of a key that is not carried over."""
    return Fate("lost", reason)


def refused(reason: str) -> Fate:
    """Returns the fate of a key without which the export would be wrong."""
    return Fate("refused", reason)


@dataclass(frozen=True, slots=True)
class SpecialCase:
    """Values, as the configuration spells them in JSON, with other fates than the rest."""

    of: str
    when: Callable[[Any], bool]
    fates: Mapping[Engine, Fate]


@dataclass(frozen=True, slots=True)
class CarriedRow:
    """The fates of keys, which are dotted; those of services have no prefix."""

    keys: tuple[str, ...]
    fates: Mapping[Engine, Fate]
    cases: tuple[SpecialCase, ...] = ()

    def fate(self, engine: Engine, value: Any) -> Fate:
        """Returns what becomes of a value."""
        for case in self.cases:
            if engine in case.fates and case.when(value):
                return case.fates[engine]
        return self.fates[engine]


def row(
    keys: str,
    *cases: SpecialCase,
    kubernetes: Fate = INSIDE,
    compose: Fate = INSIDE,
    dockerfile: Fate = INSIDE,
    ray: Fate,
) -> CarriedRow:
    """Returns a row of the table. `keys` are separated by spaces."""
    fates: dict[Engine, Fate] = {
        "kubernetes": kubernetes, "compose": compose, "dockerfile": dockerfile, "ray": ray,
    }  # fmt: skip
    return CarriedRow(tuple(keys.split()), fates, cases)


def case(of: str, when: Callable[[Any], bool], **fates: Fate) -> SpecialCase:
    """Returns values with fates of their own, by engine."""
    return SpecialCase(of, when, {engine: fates[engine] for engine in ENGINES if engine in fates})
