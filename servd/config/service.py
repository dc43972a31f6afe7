"""The models of a service. The schema, `servd init` and the docs show their descriptions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from servd.config.arguments import Arguments
from servd.config.bento.declared import arguments_text
from servd.config.connections import Proxy, SocketOptions, Timeouts, Tls, UvicornOptions
from servd.config.gpu_table import Gpus, Warmup
from servd.config.network import ExternalUrl, Listen
from servd.config.rlimits import ResourceLimits
from servd.config.scalars import (
    ONE_OR_MANY,
    TEXT_SCHEMA,
    Affinity,
    CountOrAuto,
    DurationOrNone,
    OctalModeOrNone,
    Readiness,
    SizeOrNone,
    Text,
    one_or_many,
)
from servd.config.table import Command, Switchable, Table, Texts, Word
from servd.config.variables import Environment
from servd.config.words import LogLevel, StopSignal
from servd.config.worker_tables import Autoscale, Health, Limits, Restart, Rollout
from servd.core.address import INTERNAL

SERVICE_NAME = r"^[a-z][a-z0-9_-]{0,62}$"


class ServiceLog(Table):
    """What a service logs."""

    access: bool = Field(True, description="Log one event for each request.")
    level: LogLevel = Field("info", description="Lowest level that the workers log.")
    skip_paths: Texts = Field((), description="Request paths that are not logged.")
    sample: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Share of requests that is logged, from 0 to 1. 5xx responses are always "
        "logged.",
    )
    max_rate: int = Field(
        5000,
        ge=0,
        description="Most printed lines a second. More are dropped and counted. 0: no limit.",
    )
    file: Text = Field(
        "",
        description="File for the output of the workers, in addition to the log of the daemon. "
        "Empty: no file.",
    )
    max_size: SizeOrNone = Field(
        None,
        description="Size at which the file is renamed to .1 and a new one begins. none: never.",
    )
    keep: int = Field(5, ge=0, le=1000, description="Number of renamed files to keep.")


class Dependency(Table):
    """A service that another service needs."""

    service: Text = Field(description="Name of the service.")
    condition: Literal["ready", "started", "completed"] = Field(
        "ready", description="State that it must reach before this service starts."
    )


def _dependencies(value: object) -> object:
    value = one_or_many(value)
    if not isinstance(value, list | tuple):
        return value
    return tuple({"service": item} if isinstance(item, str) else item for item in value)


class EnvFile(Table):
    """A file of environment variables."""

    path: Word = Field(description="Path of the file.")
    required: bool = Field(True, description="Whether a missing file is an error.")


def _env_files(value: object) -> object:
    if isinstance(value, str | dict):
        value = (value,) if value else ()
    if not isinstance(value, list | tuple):
        return value
    return tuple({"path": item} if isinstance(item, str) else item for item in value)


_ENV_FILE = {"anyOf": [TEXT_SCHEMA, {"table": "EnvFile"}]}
EnvFiles = Annotated[
    tuple[EnvFile, ...],
    BeforeValidator(_env_files),
    WithJsonSchema({"anyOf": [*_ENV_FILE["anyOf"], {"type": "array", "items": _ENV_FILE}]}),
]

Dependencies = Annotated[
    tuple[Dependency, ...],
    BeforeValidator(_dependencies),
    WithJsonSchema(
        {
            "anyOf": [
                TEXT_SCHEMA,
                {"type": "array", "items": {"anyOf": [TEXT_SCHEMA, {"table": "Dependency"}]}},
            ]
        }
    ),
]


class ServiceBase(Table):
    """The keys that `[defaults]` and a service share."""

    factory: bool = Field(False, description="The attribute is a function that returns the app.")
    interface: Literal["auto", "asgi3", "asgi2", "wsgi"] = Field(
        "auto",
        description='Interface of the app: "asgi3", "asgi2", "wsgi", or "auto" to detect it.',
    )
    directory: Text = Field(
        ".",
        description="Working directory, and first entry of sys.path. Relative to the config file.",
    )
    python: Text = Field(
        "",
        description="Python interpreter of another virtual environment. Empty: the interpreter "
        "of servd.",
    )
    kind: Literal["service", "task"] = Field(
        "service",
        description='"service": keeps running. "task": exits before its dependents start.',
    )
    run: Literal["always", "once"] = Field(
        "always",
        description='When a task runs again: "always": before a dependent rolls. "once": only when '
        "its definition changes.",
    )
    socket: SocketOptions = Field(
        SocketOptions.unset(), description="Mode and owner of unix sockets."
    )
    backlog: int = Field(
        2048, ge=1, le=65535, description="Most connections that wait to be accepted."
    )
    public_url: Text = Field(
        "", description="URL at which users reach the service, for status pages."
    )
    workers: CountOrAuto = Field(
        1,
        description='Number of worker processes. "auto": one for each usable CPU. 0: the service '
        "is stopped.",
    )
    autoscale: Annotated[Autoscale | None, Switchable] = Field(
        None,
        description="Instead of workers: as many as keep the mean of the requests in flight of a "
        "worker at a target. false: the number of workers is fixed.",
    )
    threads: int = Field(
        40, ge=1, le=10000, description="Number of threads for synchronous endpoints."
    )
    preload: bool = Field(False, description="Import the app once and fork the workers from it.")
    inputs: Annotated[tuple[Text, ...], BeforeValidator(one_or_many), ONE_OR_MANY] = Field(
        (),
        description="Files, folders or links whose change replaces the workers once it is "
        "complete: the weights of a model, for example.",
    )
    gpus: Gpus = Field(
        0,
        description="GPUs for each worker: a number, a share of one GPU such as 0.5, or a list of "
        'ids. "none" hides all GPUs. A table also says how much memory a worker needs.',
    )
    warmup: Annotated[Warmup | None, Switchable] = Field(
        None,
        description="Requests that a worker answers well before it accepts others. false: none.",
    )
    cpu_affinity: Affinity = Field(
        (),
        description='Ids of the CPUs that workers run on, "spread": one CPU for each worker, or '
        '"gpu": the CPUs next to its GPU. Empty: all CPUs.',
    )
    timeouts: Timeouts = Field(
        Timeouts.unset(), description="Time limits for workers and requests."
    )
    limits: Annotated[Limits | None, Switchable] = Field(
        None, description="Limits of each worker. false: no limits."
    )
    health: Annotated[Health | None, Switchable] = Field(
        None, description="Health probes of each worker. false: no probes."
    )
    watchdog: DurationOrNone = Field(
        30.0,
        description="Replace a worker whose event loop is blocked for this long. none: never.",
    )
    watchdog_tree: bool = Field(
        True,
        description="Replace a worker when a process that it started and that held GPU memory has "
        "ended: its engine died behind a front that lives.",
    )
    ready: Readiness = Field(
        "auto",
        description='When a command is ready: "auto", "notify" (READY=1), "port", "http" '
        '(health.path), "started" (after 250 ms), or a duration such as "5s" that it must run.',
    )
    activation: Literal["auto", "fd", "self"] = Field(
        "auto",
        description='What binds the address of a command: servd ("fd"), the program ("self"), or '
        '"auto" to detect it from the placeholders.',
    )
    stop_signal: StopSignal = Field("SIGTERM", description="Signal that stops a command.")
    stop_command: Command = Field(
        (), description="Program that stops a command, instead of the signal."
    )
    restart: Restart = Field(Restart.unset(), description="What happens when a worker exits.")
    rollout: Rollout = Field(Rollout.unset(), description="How new workers replace old ones.")
    env: Environment = Field({}, description="Environment variables.")
    env_file: EnvFiles = Field(
        (), description="Files of NAME=value lines, in the format of python-dotenv."
    )
    env_passthrough: Annotated[tuple[Word, ...], BeforeValidator(one_or_many), ONE_OR_MANY] = Field(
        (),
        description="Names or globs of variables that are passed on from the environment of the "
        "daemon.",
    )
    user: Text = Field(
        "", description="User that the workers run as. Empty: the user of the daemon."
    )
    group: Text = Field(
        "", description="Group that the workers run as. Empty: the group of the user."
    )
    umask: OctalModeOrNone = Field(
        None, description='File mode mask in octal, such as "027". none: that of the daemon.'
    )
    rlimits: ResourceLimits = Field(
        {}, description="Resource limits, named as in getrlimit(2): nofile, nproc, as, core."
    )
    log: ServiceLog = Field(ServiceLog.unset(), description="What the service logs.")
    proxy: Proxy = Field(Proxy.unset(), description="Trust in the headers of a reverse proxy.")
    root_path: Text = Field("", description="URL path that the app is mounted under.")
    uvicorn: UvicornOptions = Field(
        UvicornOptions.unset(), description="Options that are passed to Uvicorn."
    )
    tls: Annotated[Tls | None, Switchable] = Field(
        None, description="TLS, terminated in the workers. false: no TLS."
    )


class Defaults(ServiceBase):
    """Default values for every service."""


BENTO_STARTUP_SECONDS = 7 * 24 * 3600.0
"""In practice without end, and yet a number that every timer takes."""


class Service(ServiceBase):
    """A service: what runs, where it listens, how many workers it has, and what it depends on."""

    app: Text = Field("", description='ASGI or WSGI app: "module:attr" or "path/file.py:app".')
    command: Command = Field(
        (),
        description="Program with its arguments, as a list or as text that is split into words. "
        "It runs without a shell.",
    )
    bento: Text = Field("", description="BentoML service: import string, folder or tag.")
    bento_args: Arguments = Field(
        {}, description="Arguments of the code of a BentoML service (`bentoml.use_arguments`)."
    )
    external: ExternalUrl = Field(
        "",
        description="URL of a service that runs elsewhere, such as http://host2:8000. It has no "
        "workers here, and is ready when it answers health.path, or accepts connections.",
    )
    listen: Listen = Field(
        (INTERNAL,),
        description='Addresses: ":3000", "unix:/run/x.sock", "fd:NAME", or a list of these. '
        '"internal": reachable for other services only.',
    )
    depends_on: Dependencies = Field(
        (), description="Services that must be ready before this service starts."
    )
    components: dict[str, Defaults] = Field(
        {}, description="Settings of the components of a BentoML service, by class name."
    )

    @property
    def bento_arguments(self) -> str:
        """The arguments of its BentoML code, as JSON; "" for none."""
        return arguments_text(self.bento_args)

    @property
    def startup_seconds(self) -> float:
        """How long a worker may take to be ready: a BentoML service, which may load models, as long
        as it takes unless a limit is set.
        """
        is_open = self.bento and "startup" not in self.timeouts.model_fields_set
        return BENTO_STARTUP_SECONDS if is_open else self.timeouts.startup
