"""What the code of BentoML services declares, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Declared:
    """One class with `@bentoml.service`: what it says of itself. None, 0 and "" are silence.

    `workers` may be "cpu_count". `gpus` is for all its workers together. `env` maps names to values
    (None: required, without a default); `command` says that a program of its own serves it.
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


RUN_ALIKE = (
    "directory", "python", "env_file", "env", "env_passthrough", "user", "group", "umask",
    "rlimits", "uvicorn", "log", "restart", "rollout", "watchdog", "threads",
)  # fmt: skip
"""What a component takes over from its service: whom, where and with what its workers run. The
rest is its own: how many, on what, for how long, within which limits."""


@dataclass(frozen=True, slots=True)
class DeclaredGraph:
    """A BentoML service with everything that it depends on in its code. `files` are those that say
    so; `tag` is that of a built Bento. Without services, nothing is known of it, since its code
    cannot be imported.
    """

    entry: str = ""
    services: Mapping[str, Declared] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    tag: str = ""

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> DeclaredGraph:
        """From what `servd.worker.bento.describe` prints. Raises KeyError and TypeError for
        something else.
        """
        services = {
            item["name"]: Declared(**{**item, "depends": tuple(item["depends"])})
            for item in document["services"]
        }
        return cls(document["entry"], services, tuple(document["files"]), document["tag"])


@dataclass(frozen=True, slots=True)
class Part:
    """What a service of the configuration is in the code of a BentoML service.

    `graph` maps every name of the code to a name of the configuration; `keeps_timeout` and
    `keeps_concurrency` say whether BentoML's own limits hold, not servd's; `gpus` are for all
    workers together. `tag` is the Bento that the code is of; `unknown` says that the code could not
    be imported so far.
    """

    declared: Declared
    is_entry: bool
    graph: Mapping[str, str]
    keeps_timeout: bool
    keeps_concurrency: bool
    gpus: float = 0.0
    tag: str = ""
    unknown: bool = False
    development: bool = False


def homes(parts: Mapping[str, Part]) -> dict[str, tuple[str, ...]]:
    """Where in a configuration the settings of each component stand."""
    return {
        name: ("services", name.partition(".")[0], "components", part.declared.name)
        for name, part in parts.items()
        if not part.is_entry
    }
