"""The arguments of the builder, which the configuration of Ray Serve holds: one service."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from servd.core.quick_dataclass import dataclass
from servd.wire.worker_spec import (
    AppSpec,
    BentoSpec,
    LimitSpec,
    LogSpec,
    ProxySpec,
    TimeoutSpec,
    UvicornSpec,
)

BUILDER = "servd.engines.ray.build:build"
"""The `import_path` of every application."""

ENGINE = "ray"
"""The `engine` of addresses that handles reach."""


@dataclass(frozen=True, slots=True)
class BentoArguments:
    """A part of a BentoML service. `part` is its name in the code ("": the entry); `reached` maps
    the names of the others to services.
    """

    part: str = ""
    reached: Mapping[str, str] = dataclasses.field(default_factory=dict)
    workers: int = 1
    keeps_timeout: bool = False
    keeps_concurrency: bool = False
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class ReplicaSpec:
    """One service: what a replica runs, and the keys of its configuration that concern it. Times
    are in seconds. `directory` is below the working directory of Ray. `depends` holds the addresses
    for `servd.depends`. `digest` is that of the code: Ray does not try a failed application again,
    and does not replace a running one, unless its configuration differs.
    """

    service: str
    app: str
    digest: str = ""
    directory: str = ""
    factory: bool = False
    interface: str = "auto"
    threads: int = 40
    root_path: str = ""
    lifespan: str = "auto"
    request: float | None = None
    request_total: float | None = None
    concurrency: int = 0
    queue: int = 0
    body: int | None = None
    health_path: str = ""
    health_host: str = "localhost"
    health_timeout: float = 2.0
    health_interval: float = 10.0
    start_failures: int = 30
    access_log: bool = True
    depends: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    bento: BentoArguments | None = None

    def to_args(self) -> dict[str, Any]:
        """Returns the fields that are not at their defaults, as JSON values."""
        return _without_defaults(self)

    @classmethod
    def from_args(cls, args: Mapping[str, Any]) -> ReplicaSpec:
        """Returns what `to_args` has written. Raises TypeError for a field that this version of
        servd does not know.
        """
        bento = args.get("bento")
        return cls(**{**args, "bento": BentoArguments(**bento) if bento is not None else None})

    def app_spec(self, folder: str, bento: BentoSpec | None = None) -> AppSpec:
        """Returns how a worker runs the app in `folder`. What Ray's proxies do has its defaults."""
        return AppSpec(
            app=self.app,
            factory=self.factory,
            interface=self.interface,
            directory=folder,
            threads=self.threads,
            backlog=0,
            root_path=self.root_path,
            health_path=self.health_path,
            timeouts=TimeoutSpec(self.request, self.request_total, 20, 60, 5, 30, 5),
            limits=LimitSpec(self.concurrency, self.queue, 0, 0, 65536, self.body),
            log=LogSpec(self.access_log, "info", (), 1.0),
            proxy=ProxySpec(headers=False, trusted=()),
            uvicorn=UvicornSpec("auto", "auto", "auto", self.lifespan, 2**24, 20, 20),
            bento=bento,
        )

    def folder(self) -> str:
        """Returns its directory in this replica, whose working directory Ray has set."""
        return os.path.abspath(self.directory)


def _without_defaults(value: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        made = field.default_factory
        default = made() if made is not dataclasses.MISSING else field.default
        given = getattr(value, field.name)
        if given != default:
            is_table = dataclasses.is_dataclass(given)
            found[field.name] = _without_defaults(given) if is_table else _plain(given)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return value
