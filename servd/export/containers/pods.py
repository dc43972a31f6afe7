"""Which services run in which pod, and how they reach each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from servd.config.check_runners import SELF_BINDING
from servd.config.model import Config
from servd.config.service import Service
from servd.core import graph
from servd.core.quick_dataclass import dataclass
from servd.export.containers.names import label, variable
from servd.export.containers.options import ContainerOptions, ExportSource
from servd.plan.model import Plan

FIRST_PORT = 8000
METRICS_PORT = 9464
_UNPRIVILEGED = 1024


@dataclass(frozen=True, slots=True)
class PodPort:
    """A port of a service: its number in the container, that of the Service object, and that in
    the configuration (0: none).
    """

    name: str
    service: str
    number: int
    outside: int
    public: bool
    wanted: int


@dataclass(frozen=True, slots=True)
class ReachedService:
    """A dependency in another pod: `port` is that of its Service object, `inside` its own."""

    service: str
    host: str
    port: int
    inside: int
    scheme: Literal["http", "https"]

    @property
    def host_variable(self) -> str:
        """The variable that only has the name of the Service, which Kustomize can replace."""
        return f"HOST_OF_{variable(self.service)}"

    @property
    def url_variable(self) -> str:
        """The variable that `servd.depends` reads."""
        return f"SERVD_DEP_{variable(self.service)}"

    @property
    def url(self) -> str:
        """The address, with the host by reference (Kubernetes expands it)."""
        return f"{self.scheme}://$({self.host_variable}):{self.port}"


@dataclass(frozen=True, slots=True)
class PodPlan:
    """A pod: `services` are those of the configuration that run in it, `external` those elsewhere
    that they need; `plan` has the components too.
    """

    name: str
    services: tuple[str, ...]
    plan: Plan
    ports: tuple[PodPort, ...]
    metrics: int
    reached: tuple[ReachedService, ...] = ()
    callers: tuple[str, ...] = ()
    external: tuple[str, ...] = ()

    @property
    def is_task(self) -> bool:
        """Whether it ends by itself."""
        return all(each.is_task for each in self.plan.services)

    @property
    def labels(self) -> dict[str, str]:
        """The labels that select it."""
        return {"app.kubernetes.io/name": self.name}


def pods_of(source: ExportSource, options: ContainerOptions) -> list[PodPlan]:
    """Returns the pods, those of dependencies first."""
    config = source.as_written.config
    here = {name: each for name, each in config.services.items() if not each.external}
    needs = {
        name: [each.service for each in service.depends_on if each.service in here]
        for name, service in here.items()
    }
    order = graph.order(needs)
    if options.whole:
        return [_pod(source, options.name, order)]
    alone = {name: _pod(source, label(name), [name]) for name in order}
    callers = graph.dependents(needs)
    return [
        _connected(pod, config, [alone[n] for n in needs[name]], [alone[n] for n in callers[name]])
        for name, pod in alone.items()
    ]


def _pod(source: ExportSource, name: str, services: Sequence[str]) -> PodPlan:
    members = [each for each in source.plan.services if each.name.partition(".")[0] in services]
    inside = {each.name for each in members}
    cut = tuple(
        replace(each, depends_on=tuple(d for d in each.depends_on if d.service in inside))
        for each in members
    )
    config = source.as_written.config
    plan = Plan(cut, source.plan.runtime_dir)
    ports = _Ports()
    found = tuple(
        port
        for service in services
        for port in ports.of(service, config.services[service], alone=len(services) == 1)
    )
    external = {
        each.service
        for name in services
        for each in config.services[name].depends_on
        if each.service in config.services and config.services[each.service].external
    }
    metrics = config.admin.metrics
    wanted = metrics.port if metrics is not None and metrics.kind == "tcp" else 0
    port = ports.free(wanted or METRICS_PORT)
    return PodPlan(name, tuple(services), plan, found, port, external=tuple(sorted(external)))


def _connected(
    pod: PodPlan, config: Config, needed: Sequence[PodPlan], callers: Sequence[PodPlan]
) -> PodPlan:
    reached = tuple(
        ReachedService(
            service=other.services[0],
            host=other.name,
            port=other.ports[0].outside,
            inside=other.ports[0].number,
            scheme="https" if config.services[other.services[0]].tls is not None else "http",
        )
        for other in needed
        if other.ports
    )
    names = tuple(sorted(other.name for other in callers))
    return replace(pod, reached=reached, callers=names)


class _Ports:
    """Gives each service ports that are free in its pod."""

    def __init__(self) -> None:
        self._used: set[int] = set()
        self._outside: set[int] = set()
        self._names: set[str] = set()

    def free(self, wanted: int) -> int:
        """Returns a port that a user without rights can bind: the wanted one if possible."""
        number = wanted if wanted >= _UNPRIVILEGED else FIRST_PORT + wanted
        while number in self._used:
            number += 1
        self._used.add(number)
        return number

    def of(self, name: str, service: Service, *, alone: bool) -> Iterator[PodPort]:
        """Yields the ports of a service. `alone`: others reach it by TCP alone."""
        listened = dict.fromkeys(a.port for a in service.listen if a.kind == "tcp")
        public = bool(listened)
        if not listened and alone and _needs_a_port(service):
            listened = {FIRST_PORT: None}
        kind = _protocol(service)
        for wanted in listened:
            number = self.free(wanted)
            outside = number if wanted in self._outside or not wanted else wanted
            self._outside.add(outside)
            yield PodPort(self._name(kind), name, number, outside, public, wanted if public else 0)

    def _name(self, kind: str) -> str:
        found, n = kind, 1
        while found in self._names:
            n += 1
            found = f"{kind}-{n}"
        self._names.add(found)
        return found


def _protocol(service: Service) -> str:
    if service.command:
        return "tcp"
    return "http" if service.tls is None else "https"


def _needs_a_port(service: Service) -> bool:
    """Returns whether something of it can be reached, although it listens on no TCP address."""
    if service.kind == "task":
        return False
    if not service.command:
        return True
    mentioned = {word for word in (*SELF_BINDING, "{fd}") for a in service.command if word in a}
    return service.activation == "fd" or bool(mentioned - {"{uds}"})


def listens_of(pod: PodPlan) -> Mapping[str, list[str]]:
    """Returns the addresses of each service in the pod."""
    found: dict[str, list[str]] = {}
    for port in pod.ports:
        found.setdefault(port.service, []).append(f":{port.number}")
    return found
