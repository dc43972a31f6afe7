"""Classes that are made quickly are those that the standard library makes."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from typing import Any

import pytest

from servd.core.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Quick:
    """With every kind of field."""

    name: str
    secret: str = dataclasses.field(repr=False)
    size: int = 1
    items: list[int] = dataclasses.field(default_factory=list)
    note: str = dataclasses.field(default="", compare=False)

    def doubled(self) -> int:
        return self.size * 2


@dataclasses.dataclass(frozen=True, slots=True)
class Plain:
    """With the same fields."""

    name: str
    secret: str = dataclasses.field(repr=False)
    size: int = 1
    items: list[int] = dataclasses.field(default_factory=list)
    note: str = dataclasses.field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class One:
    value: int


@dataclass(frozen=True, slots=True)
class Empty:
    pass


@dataclass(frozen=True, slots=True)
class Own:
    value: int

    def __repr__(self) -> str:
        return "own"


def made(cls: Any) -> list[Any]:
    return [cls("a", "s"), cls("a", secret="s", size=3, items=[1], note="x")]


def test_values_are_those_of_a_dataclass() -> None:
    for quick, plain in zip(made(Quick), made(Plain), strict=True):
        assert dataclasses.asdict(quick) == dataclasses.asdict(plain)
        assert repr(quick) == repr(plain).replace("Plain", "Quick")
        assert dataclasses.replace(quick, size=9).size == 9
        assert copy.deepcopy(quick) == quick == pickle.loads(pickle.dumps(quick))
        assert not hasattr(quick, "__dict__")
    assert str(inspect.signature(Quick)).count("=") == str(inspect.signature(Plain)).count("=")
    assert Quick.__match_args__ == Plain.__match_args__
    assert Quick.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert made(Quick)[1].doubled() == 6
    assert made(Quick)[0].items is not made(Quick)[0].items


def test_equality_and_hash_follow_the_fields() -> None:
    assert Quick("a", "s") == Quick("a", "s", note="other") != Quick("a", "s", 2)
    assert One(1) == One(1) != One(2)
    assert hash(One(1)) == hash(One(1))
    assert Empty() == Empty()
    assert {One(1): 1}[One(1)] == 1
    assert One(1) != 1  # type: ignore[comparison-overlap]
    with pytest.raises(TypeError, match="unhashable"):
        hash(Quick("a", "s"))
    assert repr(Own(1)) == "own"


def test_values_cannot_be_changed() -> None:
    for item in (Quick("a", "s"), Plain("a", "s")):
        with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'size'"):
            item.size = 2  # type: ignore[misc]
        with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field 'size'"):
            del item.size


@pytest.mark.parametrize("cls", [Quick, Plain])
def test_a_missing_argument_is_named(cls: Any) -> None:
    with pytest.raises(TypeError, match=rf"{cls.__name__}.__init__\(\) missing .* 'secret'"):
        cls("a")
