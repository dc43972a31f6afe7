"""Declarations in the code of BentoML services, as values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from servd.core.address import EVERY_V4, Address
from servd.core.quick_dataclass import dataclass

_PORT = 3000
"""What BentoML listens on, on every interface."""


def arguments_text(arguments: Mapping[str, Any]) -> str:
    """Returns the arguments of the code as JSON, in a fixed order; "" for none."""
    return json.dumps(arguments, sort_keys=True) if arguments else ""


@dataclass(frozen=True, slots=True)
class GivenAddress:
    """What a command line says of the address of its only service; None leaves it to the code."""

    host: str | None = None
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Declared:
    """The declarations of one class with `@bentoml.service`; None, 0 and "" are undeclared.
    `workers` may be "cpu_count". `gpus` is for all its workers together. `env` maps names to values
    (None: required, without default). `command`: a separate program serves it. `runner`: it is one
    of a legacy service. `environments` has the variables that its strategy wants for each worker.
    `readiness`: it says itself whether it is ready (`__is_ready__`).
    """

    name: str
    depends: tuple[str, ...] = ()
    workers: int | str | None = None
    gpus: float = 0.0
    timeout: float | None = None
    max_concurrency: int | None = None
    backlog: int | None = None
    host: str = ""
    port: int | None = None
    tls: Mapping[str, str] | None = None
    env: Mapping[str, str | None] = field(default_factory=dict)
    command: bool = False
    runner: bool = False
    environments: tuple[tuple[tuple[str, str], ...], ...] = ()
    readiness: bool = False

    def address(self, given: GivenAddress | None = None) -> Address | None:
        """Returns the address of the service in `given`, in the code, or BentoML's; None if neither
        asks for one.
        """
        if given is None:
            if self.port is None and not self.host:
                return None
            given = GivenAddress()
        port = self.port if given.port is None else given.port
        host = given.host or self.host or EVERY_V4
        return Address("tcp", host=host, port=_PORT if port is None else port)


SHARED_KEYS = (
    "directory", "python", "env_file", "env", "env_passthrough", "user", "group", "umask",
    "rlimits", "uvicorn", "log", "restart", "rollout", "watchdog", "threads",
)  # fmt: skip
"""Keys that a component inherits from its service; all others are its own."""


@dataclass(frozen=True, slots=True)
class DeclaredGraph:
    """A BentoML service with its dependencies. No `services`: the code cannot be imported. `tag` is
    the Bento in BentoML's store; `latest` the file there that names its latest version, if that is
    what is asked for.
    """

    entry: str = ""
    services: Mapping[str, Declared] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    tag: str = ""
    latest: str = ""

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> DeclaredGraph:
        """Reads the output of `servd.worker.bento.describe`. Raises KeyError or TypeError."""
        services = {item["name"]: Declared(**_tuples(item)) for item in document["services"]}
        tag, latest = document["tag"], document["latest"]
        return cls(document["entry"], services, tuple(document["files"]), tag, latest)


def _tuples(value: Any) -> Any:
    """Returns a JSON value with tuples for its lists, also within objects."""
    if isinstance(value, dict):
        return {name: _tuples(inner) for name, inner in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


@dataclass(frozen=True, slots=True)
class Part:
    """The role of a service in the code of a BentoML service. `graph` maps names in the code to
    services. `keeps_*`: what BentoML does applies, not what servd does. `gpus` are for all workers
    together. `tag` is the Bento of the code, and `latest` the file that tells when there is a newer
    one, if that is wanted. `unknown`: the code could not be imported so far.
    `entry_env` has what the entry declares in `env`, for its dependencies. `asks_ready`: the code
    says whether it is ready, and the file sets no probe.
    """

    declared: Declared
    is_entry: bool
    graph: Mapping[str, str]
    keeps_timeout: bool
    keeps_concurrency: bool
    keeps_gpus: bool = True
    gpus: float = 0.0
    tag: str = ""
    latest: str = ""
    unknown: bool = False
    development: bool = False
    entry_env: Mapping[str, str | None] = field(default_factory=dict)
    asks_ready: bool = False


def component_paths(parts: Mapping[str, Part]) -> dict[str, tuple[str, ...]]:
    """Returns the path of the settings of each component in the configuration."""
    return {
        name: ("services", name.partition(".")[0], "components", part.declared.name)
        for name, part in parts.items()
        if not part.is_entry
    }
