"""`dataclass`, which makes an immutable class in a third of the time.

Fault: before Python 3.13, `dataclasses` compiles each of the six methods of an immutable class on
its own. With servd's 150 classes that takes a quarter of the daemon's start.
"""

from __future__ import annotations

import dataclasses
import operator
import sys
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass"]

if TYPE_CHECKING or sys.version_info >= (3, 13):
    from dataclasses import dataclass
else:

    def dataclass(made=None, /, **options):
        """As `dataclasses.dataclass`; other classes than plain immutable ones are left to it."""
        if made is None:
            return lambda cls: dataclass(cls, **options)
        if options != {"frozen": True, "slots": True} or made.__bases__ != (object,):
            return dataclasses.dataclass(made, **options)
        own = set(vars(made))
        made = dataclasses.dataclass(made, init=False, repr=False, eq=False, slots=True)
        fields = dataclasses.fields(made)
        if not all(field.init for field in fields):
            raise TypeError("field(init=False) needs dataclasses.dataclass")
        methods = {
            **_methods(fields),
            "__init__": _init(made, fields),
            "__getstate__": _state,
            "__setstate__": _set_state,
        }
        for name, method in methods.items():
            if name not in own:
                setattr(made, name, method)
        made.__dataclass_params__.frozen = True
        return made


def _methods(fields: tuple[dataclasses.Field[Any], ...]) -> dict[str, Any]:
    """Returns the methods that need no code of their own for each class."""
    compared = [field.name for field in fields if field.compare]
    hashed = [f.name for f in fields if (f.compare if f.hash is None else f.hash)]
    of_equality, of_hash = _values(compared), _values(hashed)

    def is_equal(self: Any, other: object) -> Any:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return of_equality(self) == of_equality(other)

    def hash_of(self: Any) -> int:
        return hash(of_hash(self))

    return {
        "__eq__": is_equal,
        "__hash__": hash_of,
        "__repr__": _repr,
        "__setattr__": _no_setattr,
        "__delattr__": _no_delattr,
    }


def _values(names: list[str]) -> Any:
    """Returns a function of an object that returns the tuple of these attributes."""
    if len(names) > 1:
        return operator.attrgetter(*names)
    return lambda item: tuple(getattr(item, name) for name in names)


def _init(made: type, fields: tuple[dataclasses.Field[Any], ...]) -> Any:
    """Compiles the constructor."""
    missing = object()
    names: dict[str, Any] = {"_set": object.__setattr__, "_missing": missing}
    arguments, lines = [], []
    for number, field in enumerate(fields):
        value = field.name
        if field.default_factory is not dataclasses.MISSING:
            names[f"_made{number}"] = field.default_factory
            value = f"_made{number}() if {value} is _missing else {value}"
            arguments.append(f"{field.name}=_missing")
        elif field.default is not dataclasses.MISSING:
            names[f"_default{number}"] = field.default
            arguments.append(f"{field.name}=_default{number}")
        else:
            arguments.append(field.name)
        lines.append(f" _set(self, {field.name!r}, {value})")
    text = f"def __init__({', '.join(['self', *arguments])}):\n" + "\n".join(lines or [" pass"])
    exec(text, names)  # noqa: S102  # of names in the code of servd, as dataclasses does
    init = names["__init__"]
    init.__qualname__ = f"{made.__qualname__}.__init__"
    init.__module__ = made.__module__
    return init


def _repr(self: Any) -> str:
    shown = (f"{f.name}={getattr(self, f.name)!r}" for f in dataclasses.fields(self) if f.repr)
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _no_setattr(self: Any, name: str, value: object) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _no_delattr(self: Any, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


def _state(self: Any) -> list[Any]:
    return [getattr(self, field.name) for field in dataclasses.fields(self)]


def _set_state(self: Any, state: list[Any]) -> None:
    for field, value in zip(dataclasses.fields(self), state, strict=True):
        object.__setattr__(self, field.name, value)
