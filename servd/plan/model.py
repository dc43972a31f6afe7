"""What shall run, as values: frozen, comparable, free of clocks and processes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from servd.config.bento.declared import Part
from servd.config.check_runners import binds_itself
from servd.config.service import Limits, Restart, Rollout, Service
from servd.config.tree import Path
from servd.core.address import Address
from servd.plan.host import Account
from servd.wire.worker_spec import AppSpec, TlsSpec

Condition = Literal["ready", "started", "completed"]

BOOTSTRAP = os.path.join(os.path.dirname(os.path.dirname(__file__)), "worker", "bootstrap.py")
"""What runs our worker in an environment that has no servd."""

USER_MARK = "~"
"""Stands between a service's name and the uid in the name of the folder for its app's metrics."""


@dataclass(frozen=True, slots=True)
class SocketPlan:
    """A socket that servd binds (or was given) and a service's workers accept on.

    `name` is what LISTEN_FDNAMES calls it; `mode`, `owner` and `group` are of a unix socket's file.
    """

    address: Address
    name: str
    backlog: int
    internal: bool = False
    tls: bool = False
    mode: int = 0o600
    owner: int | None = None
    group: int | None = None

    @property
    def key(self) -> str:
        """What the pool of sockets knows it by: addresses own sockets, not services; a port that
        the system chooses is each service's own.
        """
        anonymous = self.address.kind == "tcp" and self.address.port == 0
        return f"{self.address}#{self.name}" if anonymous else str(self.address)


@dataclass(frozen=True, slots=True)
class ReadyPlan:
    """What makes a command's worker ready, and how to ask.

    `notify` alone waits for READY=1; every other mode takes READY=1 too, when it comes first.
    `exit` is of tasks: they are ready when they have ended well. `patience` is for how many seconds
    failing probes are forgiven.
    """

    mode: Literal["notify", "port", "http", "started", "exit"]
    address: Address | None = None
    path: str = "/"
    host: str = "localhost"
    timeout: float = 2.0
    patience: float | None = None


@dataclass(frozen=True, slots=True)
class HealthPlan:
    """How a worker is asked whether it is well: at `address`, or, where that is None, on a private
    connection to servd's own worker. Times are seconds.
    """

    address: Address | None
    path: str
    host: str
    interval: float
    timeout: float
    failures: int


@dataclass(frozen=True, slots=True)
class DependencyPlan:
    """A service that must have met `condition` first."""

    service: str
    condition: Condition


@dataclass(frozen=True, slots=True)
class IdentityPlan:
    """Whom and with which limits a process runs as."""

    account: Account | None = None
    gid: int | None = None
    umask: int | None = None
    rlimits: tuple[tuple[str, int], ...] = ()
    affinity: tuple[tuple[int, ...], ...] = ()
    """CPUs of each worker, in turn; empty: all."""


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """One service, resolved: nothing is left to decide but the generation and the worker's index.

    `definition` is what the config says, for the sake of showing what differs. Exactly one of `app`
    and `command` is set. Times are seconds. `app_metrics` is the folder that servd gives the app
    for its own metrics ("": none); `part` is what a service is in the code of a BentoML service.
    """

    name: str
    workers: int
    directory: str
    python: str
    environment: Mapping[str, str] = field(repr=False)
    app_metrics: str
    identity: IdentityPlan
    sockets: tuple[SocketPlan, ...]
    addresses: tuple[Address, ...]
    depends_on: tuple[DependencyPlan, ...]
    startup: float
    drain: float
    stop_signal: int
    restart: Restart
    rollout: Rollout
    limits: Limits
    watchdog: float | None
    ready: ReadyPlan
    health: HealthPlan | None
    definition: Service = field(repr=False)
    tls: TlsSpec | None = field(default=None, repr=False)
    app: AppSpec | None = None
    command: tuple[str, ...] = ()
    part: Part | None = None
    gpus: tuple[tuple[str, ...], ...] = ()
    """GPUs of each worker, in turn; empty: nobody has asked for any."""

    @property
    def kind(self) -> Literal["app", "command"]:
        """Whether servd's worker runs it or it is a program of its own."""
        return "app" if self.app is not None else "command"

    def argv_of(self, module: str) -> list[str]:
        """How the service's interpreter runs a module of the worker: one of another environment
        need not have servd.
        """
        if self.definition.python:
            return [self.python, BOOTSTRAP, module]
        return [self.python, "-P", "-m", module]

    @property
    def is_task(self) -> bool:
        """Whether it runs to its end, and is ready when that was a success."""
        return self.definition.kind == "task"

    @property
    def binds_itself(self) -> bool:
        """Whether the program binds its address itself, so that two of it cannot stand."""
        return bool(self.command) and binds_itself(self.definition)

    @property
    def stands_alone(self) -> bool:
        """Whether two of it cannot run side by side: it binds its address itself, or BentoML runs
        a program behind it that does.
        """
        return self.binds_itself or (self.part is not None and self.part.declared.command)

    @property
    def urls(self) -> tuple[str, ...]:
        """Where it can be reached, as people write it; `internal` ones are left out."""
        return tuple(
            url_of(address, tls=self.tls is not None)
            for address in self.addresses
            if address.kind != "internal"
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that shall run: services in an order where dependencies come first."""

    services: tuple[ServicePlan, ...] = ()
    runtime_dir: str = ""
    secrets: frozenset[Path] = field(default=frozenset(), compare=False, repr=False)
    """Dotted paths of the config whose values are never shown."""

    def service(self, name: str) -> ServicePlan:
        """The service called `name`; raises KeyError."""
        for service in self.services:
            if service.name == name:
                return service
        raise KeyError(name)

    @property
    def by_name(self) -> dict[str, ServicePlan]:
        """The services by their names, in their order."""
        return {service.name: service for service in self.services}

    @property
    def graph(self) -> dict[str, list[str]]:
        """Each service with those that it depends on."""
        return {s.name: [d.service for d in s.depends_on] for s in self.services}


def url_of(address: Address, *, tls: bool) -> str:
    """An address as people write it: `https://0.0.0.0:3000`, `unix:/run/x.sock`, `fd:web`."""
    if address.kind != "tcp":
        return str(address)
    host = str(address) if address.host else f"0.0.0.0:{address.port}"
    return f"{'https' if tls else 'http'}://{host}"
