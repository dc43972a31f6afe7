"""What the daemon tells a process that it starts: one JSON document on the inherited channel.

Standard library only: the worker's interpreter may be another one than the daemon's.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class TlsSpec:
    """TLS material as the daemon read it, so that keys that only root can read work after the
    worker has dropped its privileges. All PEM; empty `authorities` means none.
    """

    certificate: str = dataclasses.field(repr=False)
    key: str = dataclasses.field(repr=False)
    password: str = dataclasses.field(repr=False)
    authorities: str
    client_auth: str
    min_version: str
    ciphers: str

    def as_dict(self) -> dict[str, str]:
        """The fields, for a message."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True)
class BentoSpec:
    """What a worker of a BentoML service is told beside the rest.

    `service` is its name in the code ("": the one that clients see), `reached_at` maps names of the
    code to the addresses of those services, and `workers` is how many share what the code allows.
    BentoML's own `traffic.timeout` and `traffic.max_concurrency` are kept unless servd has limits
    of its own for it. `folder` is for what lasts beyond one worker. Of one that is `unknown`,
    the code could not be imported when it was planned.
    """

    service: str
    reached_at: tuple[tuple[str, str], ...]
    workers: int
    keeps_timeout: bool
    keeps_concurrency: bool
    folder: str
    development: bool = False
    unknown: bool = False


@dataclass(frozen=True, slots=True)
class AppSpec:
    """How a worker runs its app. Times are seconds; a `health_path` of "" is none."""

    app: str
    factory: bool
    interface: str
    directory: str
    threads: int
    backlog: int
    root_path: str
    keep_alive: float
    drain: float
    http: str
    loop: str
    ws: str
    lifespan: str
    access_log: bool
    log_level: str
    log_sample: float
    skip_paths: tuple[str, ...]
    proxy_trusted: tuple[str, ...] | None
    request: float | None
    request_total: float | None
    concurrency: int
    queue: int
    max_requests: int
    max_requests_jitter: int
    health_path: str
    headers: float
    body: float
    head_limit: int
    body_limit: int | None
    ws_max_size: int
    ws_ping_interval: float | None
    ws_ping_timeout: float | None
    bento: BentoSpec | None = None


@dataclass(frozen=True, slots=True)
class SocketSpec:
    """A listening socket that a process inherits as descriptor `fd`."""

    name: str
    fd: int
    tls: bool = False


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """Everything that one worker process is told.

    Exactly one of `app` (run by servd's worker) and `argv` (replaced by that program) is set.
    Without `accept`, a worker is ready first and accepts when it is told to. With
    `tells_sources`, it says which files its code was loaded from. `counters` is the
    descriptor of its block of counters, `events` that of the pipe for its finished events.
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
    events: int = 1

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> WorkerSpec:
        """The spec that `to_json` wrote."""
        values: dict[str, Any] = json.loads(text)
        app, tls = values.pop("app"), values.pop("tls")
        sockets = tuple(SocketSpec(**socket) for socket in values.pop("sockets"))
        if app is not None:
            app["skip_paths"] = tuple(app["skip_paths"])
            if (bento := app["bento"]) is not None:
                bento["reached_at"] = tuple((name, uri) for name, uri in bento["reached_at"])
                app["bento"] = BentoSpec(**bento)
            app = AppSpec(**app)
        values["rlimits"] = tuple((name, value) for name, value in values["rlimits"])
        values |= {"argv": tuple(values["argv"]), "cpus": tuple(values["cpus"])}
        return cls(
            **values,
            sockets=sockets,
            app=app,
            tls=TlsSpec(**tls) if tls is not None else None,
        )
