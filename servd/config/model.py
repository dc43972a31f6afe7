"""The models of the whole configuration: validated, immutable values."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, WithJsonSchema

from servd.config.network import OptionalAddress
from servd.config.scalars import (
    ONE_OR_MANY,
    Duration,
    DurationOrAuto,
    GpusOrAuto,
    SizeOrNone,
    Text,
    one_or_many,
)
from servd.config.service import SERVICE_NAME, Command, Defaults, Service, Table, Word
from servd.config.words import LogLevel

HookEvent = Literal[
    "service_failed", "crash_loop", "reload_applied", "reload_failed", "certificate_expiring",
    "worker_replaced",
]  # fmt: skip


_EVENT = {"enum": list(get_args(HookEvent))}
HookEvents = Annotated[
    tuple[HookEvent, ...],
    BeforeValidator(one_or_many),
    Field(min_length=1),
    WithJsonSchema({"anyOf": [_EVENT, {"type": "array", "items": _EVENT, "minItems": 1}]}),
]


class DaemonLog(Table):
    """The daemon's own log, and with it that of everything it runs."""

    format: Literal["auto", "console", "json"] = Field(
        "auto", description="auto: console on a terminal, json otherwise."
    )
    level: LogLevel = Field("info", description="Least severe events of the daemon.")
    file: Text = Field("", description="A file instead of stderr; SIGUSR1 reopens it.")
    max_size: SizeOrNone = Field(
        None, description="Size at which the file is renamed to .1, and begun anew."
    )
    keep: int = Field(5, ge=0, le=1000, description="Renamed files that are kept.")


class DaemonConfig(Table):
    """How the daemon itself behaves."""

    runtime_dir: Text = Field("", description="Folder for sockets and state; empty: see README.")
    watch: bool = Field(True, description="Reload when a config, env or included file changes.")
    watch_debounce: Duration = Field(0.3, description="Quiet time before such a reload.")
    shutdown_timeout: DurationOrAuto = Field(
        "auto", description="Cap of a stop; auto: the longest chain of drains plus 10 s."
    )
    start_concurrency: int = Field(
        0, ge=0, description="Workers that may be starting at once; 0: twice the CPUs."
    )
    on_start_failure: Literal["continue", "exit"] = Field(
        "continue", description="When a service cannot start at first start: go on, or exit 3."
    )
    gpus: GpusOrAuto = Field("auto", description="GPUs of this machine: a count or ids.")
    log: DaemonLog = Field(DaemonLog(), description="The daemon's log.")


class AdminConfig(Table):
    """The admin API."""

    enabled: bool = Field(True, description="Whether there is one.")
    listen: OptionalAddress = Field(
        None, description="unix:PATH, or HOST:PORT with a token; empty: admin.sock in runtime_dir."
    )
    token: Text = Field("", description="Token that callers over TCP must show.")
    token_file: Text = Field("", description="File that holds the token.")
    group: Text = Field("", description="Group that may use the unix socket.")
    metrics: OptionalAddress = Field(
        None,
        description="An address for /metrics, /livez and /readyz: HOST:PORT or unix:PATH.",
    )


class Hook(Table):
    """Something to run or call when an event happens."""

    on: HookEvents = Field(description="Events.")
    command: Command = Field((), description="Program that gets the event on stdin.")
    url: Text = Field("", description="URL that the event is posted to.")
    timeout: Duration = Field(10.0, description="Time limit of one call.")


ServiceName = Annotated[str, Field(pattern=SERVICE_NAME)]
Include = Annotated[tuple[Word, ...], BeforeValidator(one_or_many), ONE_OR_MANY]


class Config(Table):
    """One validated configuration: the daemon, the admin API, and every service with its defaults.

    Immutable; two configurations are equal when they mean the same.
    """

    version: Literal[1] = Field(1, description="Version of the format.")
    include: Include = Field((), description="Globs of further files.")
    daemon: DaemonConfig = Field(DaemonConfig(), description="The daemon itself.")
    admin: AdminConfig = Field(AdminConfig(), description="The admin API.")
    hooks: tuple[Hook, ...] = Field((), description="Things to run or call on events.")
    defaults: Defaults = Field(Defaults(), description="What every service takes over.")
    services: dict[ServiceName, Service] = Field({}, description="The services, by name.")
