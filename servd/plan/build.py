"""Builds a plan from the config and facts of the host. Pure: no I/O, clock or random."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import signal
from collections.abc import Mapping
from typing import Literal, TypeVar

from servd.config.bento.declared import Part
from servd.config.check_runners import binds_itself
from servd.config.gpu_table import gpus_each
from servd.config.load import Loaded
from servd.config.model import Config
from servd.config.service import Service
from servd.config.table import Table
from servd.config.tree import Path
from servd.config.worker_tables import Health, Limits, Restart
from servd.core import graph
from servd.core.address import UNIX_PATH_LIMIT, Address
from servd.plan.command import placeholders, resolve
from servd.plan.environment import build_environment
from servd.plan.external import external_service, reached_at
from servd.plan.gpus import VISIBLE
from servd.plan.host import Host
from servd.plan.model import (
    USER_MARK,
    DependencyPlan,
    IdentityPlan,
    Plan,
    ServicePlan,
    SocketPlan,
)
from servd.plan.probes import health_plan, is_plain, readiness_plan, ready_plan, warmup_plan
from servd.wire.names import PROMETHEUS_FOLDER
from servd.wire.worker_spec import (
    AppSpec,
    BentoSpec,
    LimitSpec,
    LogSpec,
    ProxySpec,
    TimeoutSpec,
    TlsSpec,
    UvicornSpec,
)

SpecT = TypeVar("SpecT", TimeoutSpec, LimitSpec, LogSpec, ProxySpec, UvicornSpec)

_NO_PARTS: Mapping[str, Part] = {}


_NO_LIMITS = Limits.unset()
_UNSET_HEALTH = Health.unset()

_GPU_STALL_SECONDS = 60.0
"""`timeouts.stall` of a service with GPUs: loading weights takes as long as the disk does."""


def build_loaded(loaded: Loaded, host: Host, runtime_dir: str) -> Plan:
    """Returns the plan of a loaded configuration. See `build`."""
    return build(loaded.config, host, runtime_dir, loaded.secrets, loaded.parts)


def build(
    config: Config,
    host: Host,
    runtime_dir: str,
    secrets: frozenset[Path] = frozenset(),
    parts: Mapping[str, Part] = _NO_PARTS,
) -> Plan:
    """Returns the plan of a valid configuration; sockets between services are in `runtime_dir`."""
    needs = {  # components are unknown until the code was queried
        name: [d.service for d in service.depends_on if d.service in config.services]
        for name, service in config.services.items()
    }
    wanted_by = graph.dependents(needs)
    drafts = {
        name: _Draft(config, host, runtime_dir, name, wanted_by[name], parts.get(name))
        for name in graph.order(needs)
    }
    services = tuple(
        draft.service({name: drafts[name].reachable() for name in needs[draft.name]})
        for draft in drafts.values()
    )
    return Plan(services, runtime_dir, secrets)


def internal_path(runtime_dir: str, name: str) -> str:
    """Returns the path of the socket between services of `name`, hashed if it is too long."""
    path = os.path.join(runtime_dir, "s", f"{name}.sock")
    if len(path.encode()) > UNIX_PATH_LIMIT:
        short = hashlib.sha256(name.encode()).hexdigest()[:16]
        path = os.path.join(runtime_dir, "s", f"{short}.sock")
    return path


def spec_of(spec: type[SpecT], table: Table) -> SpecT:
    """Returns a spec with the values of the fields of the same names in `table`."""
    names = (field.name for field in dataclasses.fields(spec))
    return spec(**{name: getattr(table, name) for name in names})


def _stall(given: Service) -> float | None:
    """Returns None for a task, which ends rather than gets ready, and where the file says none."""
    timeouts = given.timeouts
    if given.kind == "task":
        return None
    if timeouts.stall is None and "stall" not in timeouts.model_fields_set:
        return _GPU_STALL_SECONDS if gpus_each(given.gpus) else None
    return timeouts.stall


class _Draft:
    """Builds the plan of one service."""

    def __init__(
        self,
        config: Config,
        host: Host,
        runtime_dir: str,
        name: str,
        dependents: list[str],
        part: Part | None,
    ) -> None:
        self.config, self.host, self.runtime_dir = config, host, runtime_dir
        self.name, self.dependents, self.part = name, dependents, part
        self.given: Service = config.services[name]
        self.is_app = bool(self.given.app or self.given.bento)
        self.internal = Address("unix", path=internal_path(runtime_dir, name))
        self.binds_itself = bool(self.given.command) and binds_itself(self.given)

    @property
    def listens(self) -> tuple[Address, ...]:
        """The configured addresses, without "internal"."""
        return tuple(a for a in self.given.listen if a.kind != "internal")

    def own_addresses(self) -> tuple[Address, ...]:
        """Returns the addresses for a command that binds itself: it is told a port that is free
        where none is set, so that servd knows it too.
        """
        port = self.host.ports.get(self.name, 0)
        if self.listens:
            return tuple(
                dataclasses.replace(each, port=port)
                if each.kind == "tcp" and not each.port
                else each
                for each in self.listens
            )
        if any("{uds}" in argument for argument in self.given.command):
            return (self.internal,)
        return (Address("tcp", host="127.0.0.1", port=port),)

    def reachable(self) -> dict[str, str]:
        """Returns its entry in SERVD_DEPENDENCIES; empty if it has no address."""
        if self.given.external:
            return reached_at(self.given, self.host)
        if self.is_app:
            return {"url": f"http://{self.name}", "uds": self.internal.path}
        addresses = self.own_addresses() if self.binds_itself else self.listens
        for address in addresses:
            if address.kind == "unix":
                return {"url": f"http://{self.name}", "uds": address.path}
            if address.kind == "tcp":
                return {"url": f"http://{address.from_here}"}
        if not self.binds_itself and self.given.activation == "fd":
            return {"url": f"http://{self.name}", "uds": self.internal.path}
        return {}

    def sockets(self) -> tuple[SocketPlan, ...]:
        """Returns the sockets that servd binds for it."""
        if self.binds_itself:
            return ()
        given = self.given
        plans = [
            SocketPlan(
                address=address,
                name=address.name or self.name,
                backlog=given.backlog,
                tls=given.tls is not None,
                mode=int(given.socket.mode, 8),
                owner=self._uid(given.socket.owner),
                group=self.host.groups.get(given.socket.group),
            )
            for address in self.listens
        ]
        wanted = self.is_app and bool(self.dependents)
        if wanted or (not self.listens and (self.is_app or given.activation == "fd")):
            plans.append(self._internal_socket())
        return tuple(plans)

    def _internal_socket(self) -> SocketPlan:
        """Returns the socket for other services: the strictest owner and mode for their users."""
        users = {self.config.services[name].user for name in self.dependents} - {""}
        groups = {self.config.services[name].group for name in self.dependents}
        owner = self._uid(users.pop()) if len(users) == 1 else None
        group: int | None = None
        mode = 0o600
        if len(users) > 1:
            group = self.host.groups.get(groups.pop()) if len(groups) == 1 else None
            mode = 0o660 if group is not None else 0o666
        return SocketPlan(
            address=self.internal,
            name=f"{self.name}-internal",
            backlog=self.given.backlog,
            internal=True,
            mode=mode,
            owner=owner,
            group=group,
        )

    def _uid(self, user: str) -> int | None:
        found = self.host.accounts.get(user)
        return found.uid if found is not None else None

    def service(self, dependencies: dict[str, dict[str, str]]) -> ServicePlan:
        """Returns the plan of the service."""
        given = self.given
        if given.external:
            return external_service(self.name, given, self.host)
        sockets = self.sockets()
        addresses = self.own_addresses() if self.binds_itself else self.listens
        names = placeholders(self.name, addresses, sockets)
        app_metrics = self._folder("m", self.name.partition(".")[0]) if self.is_app else ""
        environment = build_environment(
            self.config, self.name, self.host, dependencies, app_metrics, self.part
        )
        return ServicePlan(
            name=self.name,
            workers=self._workers(),
            directory=given.directory,
            python=given.python or self.host.python,
            environment=environment,
            app_metrics=app_metrics if environment.get(PROMETHEUS_FOLDER) == app_metrics else "",
            identity=self._identity(),
            sockets=sockets,
            addresses=addresses,
            depends_on=tuple(
                DependencyPlan(d.service, d.condition)
                for d in sorted(given.depends_on, key=lambda each: each.service)
            ),
            declared_env={
                variable: text
                for variable, text in (self.config.defaults.env | given.env).items()
                if environment.get(variable) == text
            },
            startup=given.startup_seconds,
            stall=_stall(given),
            drain=given.timeouts.drain,
            stop_signal=signal.Signals[given.stop_signal].value,
            stop_command=resolve(given.stop_command, names) if given.command else (),
            restart=self._restart(),
            rollout=given.rollout,
            limits=given.limits or _NO_LIMITS,
            watchdog=given.watchdog if given.kind != "task" else None,
            ready=ready_plan(self.name, given, addresses, sockets, self.host),
            health=health_plan(self.name, given, addresses, sockets, self.host)
            or readiness_plan(self.part),
            definition=given,
            tls=self._tls(),
            app=self._app() if self.is_app else None,
            command=resolve(given.command, names),
            part=self.part,
            usable_cpus=self.host.usable_cpus,
            warmup=warmup_plan(given, addresses, self.host),
            inputs=tuple((path, self.host.inputs.get(path, "")) for path in given.inputs),
        )

    def _folder(self, kind: str, name: str) -> str:
        """Returns a folder that the app may write to, one for each user that it runs as."""
        uid = self._uid(self.given.user)
        owner = f"{USER_MARK}{uid}" if uid is not None else ""
        return os.path.join(self.runtime_dir, kind, f"{name}{owner}")

    def _workers(self) -> int:
        if self.is_app and self.given.autoscale is not None:
            return self.given.autoscale.min
        if self.given.workers == "auto":
            return 1 if self.given.kind == "task" else self.host.usable_cpus
        return self.given.workers

    def _restart(self) -> Restart:
        """A task is retried only if the config sets a policy, and never after a success."""
        restart = self.given.restart
        if self.given.kind != "task":
            return restart
        wanted = restart.policy if "policy" in restart.model_fields_set else "never"
        policy: Literal["on-failure", "never"] = "never" if wanted == "never" else "on-failure"
        return restart.model_copy(update={"policy": policy})

    def _tls(self) -> TlsSpec | None:
        tls, pem = self.given.tls, self.host.pem_files
        if tls is None:
            return None
        return TlsSpec(
            certificate=pem.get(tls.certfile, ""),
            key=pem.get(tls.key_source, ""),
            password=tls.keyfile_password,
            authorities=pem.get(tls.ca_certs, ""),
            client_auth=tls.client_auth,
            min_version=tls.min_version,
            ciphers=tls.ciphers,
        )

    def _identity(self) -> IdentityPlan:
        given = self.given
        account = self.host.accounts.get(given.user)
        gid = self.host.groups.get(given.group, account.gid if account else None)
        affinity: tuple[tuple[int, ...], ...] = ()
        if given.cpu_affinity == "spread":
            affinity = tuple((cpu,) for cpu in self.host.cpus)
        elif given.cpu_affinity and given.cpu_affinity != "gpu":  # known once it has GPUs
            affinity = (tuple(int(cpu) for cpu in given.cpu_affinity),)
        return IdentityPlan(
            account=account,
            gid=gid,
            umask=int(given.umask, 8) if given.umask is not None else None,
            rlimits=tuple(sorted(given.rlimits.items())),
            affinity=affinity,
        )

    def _app(self) -> AppSpec:
        given = self.given
        return AppSpec(
            app=given.app or (self.part.tag if self.part is not None else "") or given.bento,
            factory=given.factory,
            interface=given.interface,
            directory=given.directory,
            threads=given.threads,
            backlog=given.backlog,
            root_path=given.root_path.rstrip("/"),
            health_path=given.health.path if given.health and is_plain(given.health) else "",
            timeouts=spec_of(TimeoutSpec, given.timeouts),
            limits=spec_of(LimitSpec, given.limits or _NO_LIMITS),
            log=spec_of(LogSpec, given.log),
            proxy=spec_of(ProxySpec, given.proxy),
            uvicorn=spec_of(UvicornSpec, given.uvicorn),
            bento=self._bento(self.part) if self.part is not None else None,
            oom_limit=(given.health or _UNSET_HEALTH).failures,
        )

    def _bento(self, part: Part) -> BentoSpec:
        """Unix sockets are "file://" addresses for BentoML."""
        reached = {
            name: f"file://{internal_path(self.runtime_dir, service)}"
            for name, service in part.graph.items()
            if service != self.name
        }
        return BentoSpec(
            service="" if part.is_entry else part.declared.name,
            reached_at=tuple(sorted(reached.items())),
            workers=max(1, self._workers()),
            keeps_timeout=part.keeps_timeout,
            keeps_concurrency=part.keeps_concurrency,
            folder=self._folder("b", self.name),
            development=part.development,
            unknown=part.unknown,
            arguments=self.given.bento_arguments,
            environments=self._environments(part),
        )

    def _environments(self, part: Part) -> tuple[tuple[tuple[str, str], ...], ...]:
        """Returns what the code wants for each worker, without what the file sets itself."""
        written = {*self.config.defaults.env, *self.given.env}
        if not part.keeps_gpus:
            written.add(VISIBLE)
        return tuple(
            tuple((name, value) for name, value in each if name not in written)
            for each in part.declared.environments
        )
