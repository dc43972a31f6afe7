"""Values that must not be written: recognised as `servd show` masks them, and referred to."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from servd.config.dump import escaped
from servd.config.load import folder_of
from servd.config.tree import Path, nearest
from servd.core.quick_dataclass import dataclass
from servd.core.secrets import mask_values
from servd.export.containers.names import variable
from servd.export.containers.options import ExportSource


@dataclass(frozen=True, slots=True, order=True)
class SecretKey:
    """A variable whose value is in a Secret. It came from a `file`, or from the variable `shell`.
    `optional`: the pod starts without it. `of_env_file`: an `env_file` sets it.
    """

    variable: str
    file: str = ""
    shell: str = ""
    optional: bool = False
    of_env_file: bool = False

    @property
    def given(self) -> str:
        """Its value for a shell: without the newline at the end of a file, as in servd."""
        if self.file:
            return f'"$(cat {shlex.quote(self.file)})"'
        return f'"${self.shell or self.variable}"'

    @property
    def option(self) -> str:
        """The option of `kubectl create secret` that gives it its value."""
        return f"--from-literal={self.variable}={self.given}"


@dataclass(frozen=True, slots=True)
class Spelling:
    """How texts that are no references, and references to variables, are spelled somewhere."""

    literal: Callable[[Any], Any]
    reference: Callable[[str], str]


IN_SERVD = Spelling(escaped, "${{{}}}".format)
"""In a configuration of servd."""

IN_KUBERNETES = Spelling(
    lambda value: value.replace("$", "$$") if isinstance(value, str) else value, "$({})".format
)
"""In the command and the environment of a container."""


class SecretFinder:
    """Replaces secrets by references, and keeps what was found. No reference has a `reserved` name:
    the variable of the container with this name has a value of its own.
    """

    def __init__(
        self, source: ExportSource, spelling: Spelling, reserved: Iterable[str] = ()
    ) -> None:
        self.found: dict[str, SecretKey] = {}
        self._reserved = frozenset(reserved)
        self._secrets = source.loaded.secrets | source.as_written.secrets
        self._layers = source.as_written.layers
        self._spelling = spelling

    @property
    def keys(self) -> tuple[SecretKey, ...]:
        """What was found, by name."""
        return tuple(sorted(self.found.values()))

    def is_secret(self, value: Any, path: Path) -> bool:
        """Returns whether any part of a value is masked where it is shown."""
        return bool(mask_values(value, path, self._secrets) != _without_none(value))

    def add(
        self, name: str, path: Path = (), *, optional: bool = False, of_env_file: bool = False
    ) -> None:
        """Remembers a variable, and where the value at `path` came from if it is known."""
        key = SecretKey(name) if of_env_file else self._key(name, path)
        self.found.setdefault(name, replace(key, optional=optional, of_env_file=of_env_file))

    def replaced(self, value: Any, path: Path) -> Any:
        """Returns values as they are spelled, secrets as references with names for their keys."""
        if isinstance(value, dict):
            return {key: self.replaced(entry, (*path, key)) for key, entry in value.items()}
        if isinstance(value, list | tuple):
            masked = mask_values(list(value), path, self._secrets)
            return [
                self.reference((*path, index))
                if isinstance(item, str) and item != shown
                else self.replaced(item, (*path, index))
                for index, (item, shown) in enumerate(zip(value, masked, strict=True))
            ]
        if isinstance(value, str) and value and self.is_secret(value, path):
            return self.reference(path)
        return self._spelling.literal(value)

    def reference(self, path: Path, *, of_env_file: bool = False) -> str:
        """Returns the reference to a secret: to TLS_KEYFILE_PASSWORD for that key of a service, to
        KEY for `env.KEY`; a second one has the name of its service before it.
        """
        name = _named(path[2:] if path[0] == "services" else path)
        if name in self.found or name in self._reserved:
            name = _named(path[1:] if path[0] == "services" else path)
        begin, number = name, 1
        while name in self.found or name in self._reserved:
            number += 1
            name = f"{begin}_{number}"
        self.add(name, path, of_env_file=of_env_file)
        return self._spelling.reference(name)

    def _key(self, name: str, path: Path) -> SecretKey:
        """Returns a variable with what the value at `path` consists of, if that is a reference."""
        if self._layers is None or not path:
            return SecretKey(name)
        for way in (path, ("defaults", *path[2:])):
            node, exact = nearest(self._layers.file, way)
            if exact and [each.text for each in node.references] == [node.value]:
                return _from_reference(name, node.references[0].written, node.place.file)
        return SecretKey(name)


def _from_reference(name: str, written: str, config: str) -> SecretKey:
    """Returns a variable with the value of a reference in the file `config`."""
    if written.startswith("${file:"):
        file = written.removeprefix("${file:").removesuffix("}")
        return SecretKey(name, file=os.path.join(folder_of(config), file))
    of_shell = re.match(r"\$\{(\w+)", written)
    return SecretKey(name, shell=of_shell[1] if of_shell else "")


def _named(steps: Sequence[str | int]) -> str:
    """Returns the name for a path; a variable in `env` keeps its own."""
    *before, last = (str(step) for step in steps if step != "env")
    own = re.sub(r"[^A-Za-z0-9_]", "_", last) if "env" in steps[:-1] else variable(last)
    return "_".join([*(variable(step) for step in before), own])


def _without_none(value: Any) -> Any:
    """As `mask_values` leaves what has no secret."""
    return list(value) if isinstance(value, tuple) else value
