"""The plan: what runs, as frozen, comparable values without clocks and processes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import field
from typing import Literal

from servd.config.bento.declared import Part
from servd.config.check_runners import binds_itself
from servd.config.http_file import RequestFile
from servd.config.service import Service
from servd.config.tree import Path
from servd.config.worker_tables import Limits, Restart, Rollout
from servd.core import graph
from servd.core.address import Address
from servd.core.origin import origin_of
from servd.core.quick_dataclass import dataclass
from servd.plan.host import Account
from servd.wire.graces import KILL_SECONDS
from servd.wire.worker_spec import AppSpec, TlsSpec

Condition = Literal["ready", "started", "completed"]

BOOTSTRAP = os.path.join(os.path.dirname(os.path.dirname(__file__)), "worker", "bootstrap.py")
"""Runs servd's worker in an environment without servd."""

PROOF_SECONDS = 0.25
"""Time after which a program that does not report its readiness counts as started."""

MOST_STARTUPS = 10
"""A worker that makes progress may take so many times `timeouts.startup` to start."""

USER_MARK = "~"
"""Separates a service's name from the uid in the folder names of its app."""


@dataclass(frozen=True, slots=True)
class SocketPlan:
    """A socket that workers accept on. `name` is for LISTEN_FDNAMES; `mode` to `group` for unix."""

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
        """Key in the socket pool: the address; for a port that the system chooses, a name too."""
        anonymous = self.address.kind == "tcp" and self.address.port == 0
        return f"{self.address}#{self.name}" if anonymous else str(self.address)


@dataclass(frozen=True, slots=True)
class ReadyPlan:
    """When a worker is ready, and how to probe it. `notify` waits for READY=1, which other modes
    accept too; `started`: alive for `proof` seconds; `exit`: after a successful end. Failures are
    ignored for `patience` seconds. `http` asks as `health` says, if there is one.
    """

    mode: Literal["notify", "port", "http", "started", "exit"]
    address: Address | None = None
    path: str = "/"
    host: str = "localhost"
    timeout: float = 2.0
    patience: float | None = None
    proof: float = PROOF_SECONDS
    health: HealthPlan | None = None


@dataclass(frozen=True, slots=True)
class HealthPlan:
    """Health probes: at `address`, or (None) privately to servd's worker. A `command` must
    exit with 0; `tcp`: the address must accept. Times in seconds. `request` is sent instead of a
    GET of `path`, and its answer awaited to the end: it shows that the app can do its work.
    `trusts`: a worker that answers requests is not asked. `only_readiness`: a worker that fails is
    shown, and stays.
    """

    address: Address | None
    path: str
    host: str
    interval: float
    timeout: float
    failures: int
    tcp: bool = False
    command: tuple[str, ...] = ()
    only_readiness: bool = False
    request: RequestFile | None = field(default=None, repr=False)
    expect: str = ""
    trusts: bool = False

    @property
    def shown(self) -> str:
        """The HTTP request as messages name it."""
        return f"GET {self.path}" if self.request is None else self.request.shown


@dataclass(frozen=True, slots=True)
class WarmupPlan:
    """A request that a worker answers well `times` times before it accepts others: sent to
    `address`, or (None) privately to servd's worker; all of them within `timeout` seconds.
    """

    request: RequestFile = field(repr=False)
    address: Address | None
    host: str
    times: int
    timeout: float


@dataclass(frozen=True, slots=True)
class DependencyPlan:
    """A service that must meet `condition` first."""

    service: str
    condition: Condition


@dataclass(frozen=True, slots=True)
class ExternalPlan:
    """A service that runs elsewhere: its URL, and the files that its TLS needs, with a `version`
    that changes with their content.
    """

    url: str
    ca_certs: str = ""
    certfile: str = ""
    keyfile: str = ""
    version: str = ""

    @property
    def shown(self) -> str:
        """The URL without its path, which may be a secret."""
        return origin_of(self.url)


@dataclass(frozen=True, slots=True)
class IdentityPlan:
    """User, group, umask, rlimits and CPU affinity of a worker process."""

    account: Account | None = None
    gid: int | None = None
    umask: int | None = None
    rlimits: tuple[tuple[str, int], ...] = ()
    affinity: tuple[tuple[int, ...], ...] = ()
    """CPUs of each worker, in turn; empty: all CPUs."""


@dataclass(frozen=True, slots=True)
class FoundAddress:
    """An undeclared address that a running program listens on. `fixed`: it would bind the same one
    again, so it was not chosen by the system.
    """

    address: str
    fixed: bool


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """One service with all but generation and worker resolved. `definition` is the config, for
    showing differences. Exactly one of `app`, `command` and `external` is set. Times in seconds.
    `app_metrics`
    is the folder for the app's metrics ("": none); `part` is its role in BentoML code.
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
    stall: float | None
    drain: float
    stop_signal: int
    stop_command: tuple[str, ...]
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
    external: ExternalPlan | None = None
    part: Part | None = None
    warmup: WarmupPlan | None = None
    gpus: tuple[tuple[str, ...], ...] = ()
    """GPUs of each worker by ids that stay (UUIDs where known), in turn; empty: none requested."""
    gpu_names: Mapping[str, str] = field(default_factory=dict, compare=False)
    """What each of its GPUs is called in CUDA_VISIBLE_DEVICES, by id: a number may shift."""
    rollout_reason: str = field(default="", compare=False)
    """Why old workers have to end before new ones start, where the config does not say so."""
    fits_twice: bool = field(default=True, compare=False)
    """Whether its GPUs have room for all new workers next to all old ones."""
    inputs: tuple[tuple[str, str], ...] = ()
    """Paths of what it takes in, with their states."""
    found: tuple[FoundAddress, ...] = field(default=(), compare=False)
    """Undeclared addresses that the running program binds."""
    usable_cpus: int = field(default=0, compare=False)
    """CPUs of this machine that workers may use; 0 for a service that has none here."""
    declared_env: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Variables with the values of the `env` tables; others come from files or from the daemon."""

    @property
    def kind(self) -> Literal["app", "command", "external"]:
        """Whether servd's worker runs it ("app"), it is a separate program, or runs elsewhere."""
        if self.external is not None:
            return "external"
        return "app" if self.app is not None else "command"

    def argv_of(self, module: str) -> list[str]:
        """Returns the command line of a module of the worker, also without servd installed."""
        if self.definition.python:
            return [self.python, BOOTSTRAP, module]
        return [self.python, "-P", "-m", module]

    def gpus_of(self, slot: int) -> tuple[str, ...]:
        """Returns the GPUs of the worker in `slot`; the plan has fewer when workers are added."""
        return self.gpus[slot % len(self.gpus)] if self.gpus else ()

    @property
    def preloads(self) -> bool:
        """Whether a template loads its app, and forks the workers."""
        return self.app is not None and self.definition.preload

    @property
    def stop_seconds(self) -> float:
        """Time from the signal that stops a worker to SIGKILL."""
        if self.app is None:
            return self.drain
        return self.drain + self.app.timeouts.shutdown + KILL_SECONDS

    @property
    def stall_is_set(self) -> bool:
        """Whether `stall` is the user's: only then does it end a start before `startup` does."""
        return self.definition.timeouts.stall is not None

    @property
    def start_seconds(self) -> float:
        """Longest time from the start of a worker until it accepts: with all that its start may be
        extended by.
        """
        warmup = self.warmup.timeout if self.warmup is not None else 0.0
        return MOST_STARTUPS * self.startup + warmup

    @property
    def is_task(self) -> bool:
        """Whether it is a task: ready once it has exited with status 0."""
        return self.definition.kind == "task"

    @property
    def binds_itself(self) -> bool:
        """Whether the program binds its address itself, so that only one can run."""
        return bool(self.command) and binds_itself(self.definition)

    @property
    def stands_alone(self) -> bool:
        """Whether two workers cannot run at once, since they bind the address themselves."""
        declared = self.part is not None and self.part.declared.command
        return self.binds_itself or declared or bool(self.held and not self.sockets)

    @property
    def held(self) -> tuple[FoundAddress, ...]:
        """The found addresses that an old and a new worker cannot both have."""
        return tuple(item for item in self.found if item.fixed)

    @property
    def never_overlaps(self) -> bool:
        """Whether an old worker must exit before a new one replaces it."""
        return bool(self.stands_alone or self.held or self.rollout.strategy == "recreate")

    @property
    def urls(self) -> tuple[str, ...]:
        """Its addresses as URLs, without `internal`."""
        if self.external is not None:
            return (self.external.shown,)
        outside = (address for address in self.addresses if address.kind != "internal")
        return tuple(url_of(address, tls=self.tls is not None) for address in outside)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that runs: services, dependencies first."""

    services: tuple[ServicePlan, ...] = ()
    runtime_dir: str = ""
    secrets: frozenset[Path] = field(default=frozenset(), compare=False, repr=False)
    """Paths of the config whose values are never shown."""

    def service(self, name: str) -> ServicePlan:
        """Returns the service called `name`. Raises KeyError."""
        return self.by_name[name]

    @property
    def by_name(self) -> dict[str, ServicePlan]:
        """The services by name, in order."""
        return {service.name: service for service in self.services}

    @property
    def graph(self) -> dict[str, list[str]]:
        """Each service with its dependencies."""
        return {s.name: [d.service for d in s.depends_on] for s in self.services}

    @property
    def stop_seconds(self) -> float:
        """Time for the longest chain of drains, dependents first."""
        longest: dict[str, float] = {}
        needs, services = self.graph, self.by_name
        wanted_by = graph.dependents(needs)
        for name in reversed(graph.order(needs)):
            waits = max((longest[other] for other in wanted_by[name]), default=0.0)
            longest[name] = waits + services[name].stop_seconds
        return max(longest.values(), default=0.0)


def url_of(address: Address, *, tls: bool) -> str:
    """Returns an address as text: `https://0.0.0.0:3000`, `unix:/run/x.sock`, `fd:web`."""
    if address.kind != "tcp":
        return str(address)
    host = str(address) if address.host else f"0.0.0.0:{address.port}"
    return f"{'https' if tls else 'http'}://{host}"
