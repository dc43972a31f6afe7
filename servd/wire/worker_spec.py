"""The specification of a worker process: a line of JSON on its channel. Standard library only."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from servd.core.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class TlsSpec:
    """TLS material in PEM, read by the daemon with its rights; `authorities` of "": none."""

    certificate: str = dataclasses.field(repr=False)
    key: str = dataclasses.field(repr=False)
    password: str = dataclasses.field(repr=False)
    authorities: str
    client_auth: str
    min_version: str
    ciphers: str

    def as_dict(self) -> dict[str, str]:
        """Returns the fields as a dict, for a message."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True)
class BentoSpec:
    """Settings of a worker of a BentoML service. `service` is the name in the code ("": the entry),
    `reached_at` maps such names to addresses. `workers` share the limits in the code. `keeps_*`
    keep BentoML's `traffic.timeout` and `max_concurrency`. `folder` outlives a worker. `unknown`:
    the code could not be imported at planning. `arguments` are those of the code, as JSON.
    `environments` has the variables that the code wants for each worker.
    """

    service: str
    reached_at: tuple[tuple[str, str], ...]
    workers: int
    keeps_timeout: bool
    keeps_concurrency: bool
    folder: str
    development: bool = False
    unknown: bool = False
    arguments: str = field(default="", repr=False)
    environments: tuple[tuple[tuple[str, str], ...], ...] = ()


@dataclass(frozen=True, slots=True)
class TimeoutSpec:
    """The keys of `timeouts` that concern a worker, in seconds."""

    request: float | None
    request_total: float | None
    headers: float
    body: float
    keep_alive: float
    drain: float
    shutdown: float


@dataclass(frozen=True, slots=True)
class LimitSpec:
    """The keys of `limits` that concern a worker; `head` and `body` in bytes."""

    concurrency: int
    queue: int
    max_requests: int
    max_requests_jitter: int
    head: int
    body: int | None


@dataclass(frozen=True, slots=True)
class LogSpec:
    """The keys of `log` of a service."""

    access: bool
    level: str
    skip_paths: tuple[str, ...]
    sample: float


@dataclass(frozen=True, slots=True)
class ProxySpec:
    """The keys of `proxy`."""

    headers: bool
    trusted: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UvicornSpec:
    """The keys of `uvicorn`; `ws_max_size` in bytes, the pings in seconds."""

    http: str
    loop: str
    ws: str
    lifespan: str
    ws_max_size: int
    ws_ping_interval: float | None
    ws_ping_timeout: float | None


@dataclass(frozen=True, slots=True)
class AppSpec:
    """How a worker runs its app; a `health_path` of "": none. After `oom_limit` requests in a row
    that lack memory of a GPU it is replaced; `has_gpus`: the plan gives it some. The nested tables
    have the field names of their config models: `servd.plan.build` copies them by name.
    """

    app: str
    factory: bool
    interface: str
    directory: str
    threads: int
    backlog: int
    root_path: str
    health_path: str
    timeouts: TimeoutSpec
    limits: LimitSpec
    log: LogSpec
    proxy: ProxySpec
    uvicorn: UvicornSpec
    bento: BentoSpec | None = None
    oom_limit: int = 3
    has_gpus: bool = False


@dataclass(frozen=True, slots=True)
class SocketSpec:
    """A listening socket that the process inherits as descriptor `fd`. `path` is where clients find
    a unix socket: it was bound under another name (`servd.core.bind.bind_unix`).
    """

    name: str
    fd: int
    tls: bool = False
    path: str = ""


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """Everything that one worker receives at its start. Exactly one of `app` (run by servd's
    worker) and `argv` (a program) is set. Without `accept`, it becomes ready first and accepts on
    command. With `tells_sources`, it reports the files of its code. `counters` is the descriptor of
    its counter block, `events` that of the pipe for finished events, `board` that of the board on
    which it has the seat `seat`.
    """

    service: str
    worker: int
    generation: int
    stop_signal: int
    sockets: tuple[SocketSpec, ...] = ()
    app: AppSpec | None = None
    argv: tuple[str, ...] = ()
    rlimits: tuple[tuple[str, int], ...] = ()
    cpus: tuple[int, ...] = ()
    no_new_privs: bool = False
    tls: TlsSpec | None = None
    accept: bool = True
    watchdog: float | None = None
    tells_sources: bool = False
    counters: int = -1
    board: int = -1
    seat: int = 0
    events: int = 1

    def to_json(self) -> str:
        """Returns one line of JSON."""
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"))

    def renumbered(self, numbers: Mapping[int, int]) -> WorkerSpec:
        """Returns the spec with the `numbers` that its descriptors have in this process."""
        return dataclasses.replace(
            self,
            sockets=tuple(dataclasses.replace(s, fd=numbers[s.fd]) for s in self.sockets),
            counters=numbers[self.counters],
            board=numbers[self.board],
            events=numbers[self.events],
        )

    @classmethod
    def from_json(cls, text: str) -> WorkerSpec:
        """Returns the spec that `to_json` wrote."""
        spec: WorkerSpec = _read(json.loads(text), cls)
        return spec


_NESTED: dict[str, Any] = {
    "app": AppSpec, "sockets": SocketSpec, "tls": TlsSpec, "timeouts": TimeoutSpec,
    "limits": LimitSpec, "log": LogSpec, "proxy": ProxySpec, "uvicorn": UvicornSpec,
    "bento": BentoSpec,
}  # fmt: skip
"""Spec class of each nested field, by the field's name."""


def _read(value: Any, spec: Any = None) -> Any:
    """Converts a JSON value: objects to `spec`, arrays to tuples."""
    if isinstance(value, dict):
        return spec(**{name: _read(inner, _NESTED.get(name)) for name, inner in value.items()})
    return tuple(_read(inner, spec) for inner in value) if isinstance(value, list) else value
