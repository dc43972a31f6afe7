"""The models of the whole configuration: validated, immutable values."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, WithJsonSchema

from servd.config.network import OptionalAddress
from servd.config.scalars import (
    ONE_OR_MANY,
    Duration,
    DurationOrAuto,
    DurationOrNone,
    GpusOrAuto,
    SizeOrNone,
    Text,
    one_or_many,
)
from servd.config.service import SERVICE_NAME, Defaults, Service
from servd.config.table import Command, Table, Word
from servd.config.words import LogLevel

HookEvent = Literal[
    "service_failed", "crash_loop", "reload_applied", "reload_failed", "certificate_expiring",
    "worker_replaced", "gpu_failed",
]  # fmt: skip


_EVENT = {"enum": list(get_args(HookEvent))}
HookEvents = Annotated[
    tuple[HookEvent, ...],
    BeforeValidator(one_or_many),
    Field(min_length=1),
    WithJsonSchema({"anyOf": [_EVENT, {"type": "array", "items": _EVENT, "minItems": 1}]}),
]


class DaemonLog(Table):
    """The log of the daemon and of everything that it runs."""

    format: Literal["auto", "console", "json"] = Field(
        "auto", description="Format of the lines. auto: console on a terminal, otherwise json."
    )
    level: LogLevel = Field("info", description="Lowest level that the daemon logs.")
    file: Text = Field(
        "", description="Log file. SIGUSR1 reopens it. Empty: log to standard error."
    )
    max_size: SizeOrNone = Field(
        None,
        description="Size at which the file is renamed to .1 and a new one begins. none: never.",
    )
    keep: int = Field(5, ge=0, le=1000, description="Number of renamed files to keep.")


class DaemonConfig(Table):
    """The daemon itself."""

    runtime_dir: Text = Field(
        "",
        description="Folder for sockets and state. Empty: $RUNTIME_DIRECTORY, or a folder for this "
        "configuration below /run/servd (root), $XDG_RUNTIME_DIR or the temporary folder.",
    )
    watch: bool = Field(
        True, description="Reload when the config, an included file or an env_file changes."
    )
    watch_debounce: Duration = Field(
        0.3, description="Time without further changes before such a reload."
    )
    shutdown_timeout: DurationOrAuto = Field(
        "auto",
        description="Time limit for stopping everything. auto: the longest chain of drains plus "
        "10 s.",
    )
    stop_delay: DurationOrNone = Field(
        None,
        description="Time between a request to stop and the drain. /readyz answers 503 meanwhile, "
        "and everything is served: a load balancer that asks there sends nothing more.",
    )
    start_concurrency: int = Field(
        0,
        ge=0,
        description="Most workers that start at the same time. 0: twice the number of CPUs.",
    )
    on_start_failure: Literal["continue", "exit"] = Field(
        "continue",
        description='When a service cannot start at first start: "continue" and retry, or "exit" '
        "with status 3.",
    )
    gpus: GpusOrAuto = Field(
        "auto", description="GPUs of this machine: a number or a list of ids. auto: all GPUs."
    )
    gpu_errors: Literal["quarantine", "report"] = Field(
        "quarantine",
        description="When the driver reports that a GPU is broken: use it no more, or report it "
        "alone.",
    )
    log: DaemonLog = Field(DaemonLog.unset(), description="Log of the daemon and of its services.")


class AdminConfig(Table):
    """The admin API."""

    enabled: bool = Field(True, description="Serve the admin API.")
    listen: OptionalAddress = Field(
        None,
        description='Address: "unix:PATH", or "HOST:PORT" with a token. Empty: admin.sock in '
        "runtime_dir.",
    )
    token: Text = Field("", description="Token that clients must send over TCP.")
    token_file: Text = Field("", description="File that contains the token.")
    group: Text = Field(
        "", description="Group that may use the unix socket. Empty: the user of the daemon only."
    )
    metrics: OptionalAddress = Field(
        None,
        description="Another address for /metrics, /livez and /readyz alone: HOST:PORT or "
        "unix:PATH. Empty: none.",
    )


class Hook(Table):
    """A program to run or a URL to call when an event happens."""

    on: HookEvents = Field(description="Events that trigger the hook.")
    command: Command = Field((), description="Program that receives the event as JSON on stdin.")
    url: Text = Field("", description="URL that receives the event as JSON by POST.")
    timeout: Duration = Field(10.0, description="Time limit of one call.")


ServiceName = Annotated[str, Field(pattern=SERVICE_NAME)]
Include = Annotated[tuple[Word, ...], BeforeValidator(one_or_many), ONE_OR_MANY]


class Config(Table):
    """A validated configuration: the daemon, the admin API, and every service with its defaults.

    Immutable. Two configurations are equal when they have the same meaning.
    """

    version: Literal[1] = Field(1, description="Version of the format.")
    include: Include = Field(
        (), description="Further config files, as globs relative to this file."
    )
    daemon: DaemonConfig = Field(DaemonConfig.unset(), description="Settings of the daemon.")
    admin: AdminConfig = Field(AdminConfig.unset(), description="Settings of the admin API.")
    hooks: tuple[Hook, ...] = Field(
        (), description="Programs to run or URLs to call when events happen."
    )
    defaults: Defaults = Field(Defaults.unset(), description="Default values for every service.")
    services: dict[ServiceName, Service] = Field({}, description="The services, by name.")
