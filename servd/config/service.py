"""The models of a service; the schema, `servd init` and the docs show the descriptions."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from servd.config.command_line import split_command
from servd.config.network import Listen, OptionalAddress, Peer
from servd.config.rlimits import ResourceLimits
from servd.config.scalars import (
    ONE_OR_MANY,
    TEXT_SCHEMA,
    Affinity,
    CountOrAuto,
    Duration,
    DurationOrNone,
    Gpus,
    OctalMode,
    OctalModeOrNone,
    PercentOrCount,
    Readiness,
    Size,
    SizeOrNone,
    Text,
    one_or_many,
)
from servd.config.tree import UntypedText
from servd.config.variables import Environment
from servd.config.words import LogLevel, StopSignal
from servd.core.address import INTERNAL

URL_PATH = r"^/[^\s\x00-\x1f\x7f]*$"
HOST_HEADER = r"^[^\s\x00-\x1f\x7f]+$"
SERVICE_NAME = r"^[a-z][a-z0-9_-]{0,62}$"
Word = Annotated[Text, Field(min_length=1)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(one_or_many), ONE_OR_MANY]


_TRUE, _FALSE = ("true", "yes", "on"), ("false", "no", "off")

Switchable = BeforeValidator(
    lambda value: None if value is False or value in (*_FALSE, "none") else value
)
"""`limits = false` switches an inherited table off."""


class Table(BaseModel):
    """Base of every table of the language: immutable, nothing unknown, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @field_validator("*", mode="before")
    @classmethod
    def _read_text(cls, value: object, info: ValidationInfo) -> object:
        """Converts words such as `off` to the boolean that the key expects, and text of the
        environment to a number too.
        """
        if not isinstance(value, str):
            return value
        field = cls.model_fields[info.field_name or ""]
        wanted, word = _types_in(field.annotation), value.lower()
        if bool in wanted and word in (*_TRUE, *_FALSE):
            return word in _TRUE
        if type(value) is not UntypedText:
            return value
        if Switchable in field.metadata and word == "false":
            return False
        if int in wanted and re.fullmatch(r"-?\d{1,18}", value):
            return int(value)
        if float in wanted and re.fullmatch(r"-?\d+(\.\d+)?", value):
            return float(value)
        return str(value)


def _types_in(annotation: Any) -> set[Any]:
    """Returns the types of a union, or the type itself."""
    return set(get_args(annotation)) or {annotation}


class SocketOptions(Table):
    """Mode and owner of the unix sockets that a service listens on."""

    mode: OctalMode = Field("0600", description="Permissions of the socket file, as a string.")
    owner: Text = Field("", description="User that owns the socket file; empty: the daemon's.")
    group: Text = Field("", description="Group of the socket file; empty: the daemon's.")


class Timeouts(Table):
    """How long things may take."""

    startup: Duration = Field(60.0, description="From the start of a worker until it is ready.")
    request: DurationOrNone = Field(
        None, description="From a request's arrival to the first byte of its answer; then 504."
    )
    request_total: DurationOrNone = Field(
        None, description="From a request's arrival to the last byte of its answer."
    )
    headers: Duration = Field(20.0, description="To receive the headers of a request.")
    body: Duration = Field(60.0, description="Longest pause while the body of a request arrives.")
    keep_alive: Duration = Field(5.0, description="An idle kept connection is closed after this.")
    drain: Duration = Field(
        30.0,
        description="For requests in flight when a worker stops or is replaced; "
        "of a command: from its signal to SIGKILL.",
    )
    shutdown: Duration = Field(
        5.0, description="What an app's lifespan may take after the drain; then SIGKILL."
    )


class Limits(Table):
    """Limits of each worker."""

    concurrency: int = Field(
        0, ge=0, description="Requests at once; over it (and the queue) 503. 0: none."
    )
    queue: int = Field(0, ge=0, description="Requests that may wait for a free place.")
    max_requests: int = Field(0, ge=0, description="Recycle a worker after so many. 0: never.")
    max_requests_jitter: int = Field(
        0, ge=0, description="Random number of requests added to max_requests."
    )
    max_age: DurationOrNone = Field(None, description="Recycle a worker that is older than this.")
    memory: SizeOrNone = Field(None, description="Recycle a worker that uses more than this.")
    head: Size = Field(65536, description="Request line and headers of a request; then 431.")
    body: SizeOrNone = Field(None, description="Body of a request; then 413.")


Command = Annotated[
    tuple[Text, ...],
    BeforeValidator(split_command),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]


class Health(Table):
    """How a worker is asked whether it is well; 2xx and 3xx answers are healthy. What is not HTTP
    is asked by `tcp` or `command` instead.
    """

    path: Text = Field("/healthz", pattern=URL_PATH, description="Path of the request.")
    tcp: OptionalAddress = Field(
        None, description="Address that accepts a connection while the command is well."
    )
    command: Command = Field((), description="A program that exits with 0 while it is well.")
    host: Text = Field("localhost", pattern=HOST_HEADER, description="Host header of the request.")
    interval: Duration = Field(10.0, description="Pause between two probes.")
    timeout: Duration = Field(2.0, description="For one answer.")
    failures: int = Field(3, ge=1, description="Failures in a row until a worker is replaced.")
    start_failures: int = Field(30, ge=0, description="Failures forgiven to a starting worker.")


class Restart(Table):
    """What happens when a worker dies."""

    policy: Literal["always", "on-failure", "never"] = Field(
        "always", description="Which deaths are followed by a new start."
    )
    backoff: Duration = Field(0.5, description="Pause before the second start in a row.")
    backoff_max: Duration = Field(30.0, description="Longest pause between two starts.")
    backoff_factor: float = Field(
        2.0, ge=1, le=100, description="The pause grows by this after every failure."
    )
    reset_after: Duration = Field(
        60.0, description="A worker that lived so long starts the pauses from the beginning."
    )
    give_up_after: int = Field(0, ge=0, description="Failures in a row until giving up. 0: never.")


class Rollout(Table):
    """How a new generation of workers replaces the old one."""

    strategy: Literal["surge", "one-by-one", "recreate"] = Field(
        "surge",
        description="All new workers beside the old, one at a time, or the old end before the new "
        "start (singletons, models that fill their GPU).",
    )
    max_surge: PercentOrCount = Field("100%", description="Workers above `workers` at once.")


class ServiceLog(Table):
    """What a service logs."""

    access: bool = Field(True, description="One event for every request.")
    level: LogLevel = Field("info", description="Least severe events of the worker's loggers.")
    skip_paths: Texts = Field((), description="Paths that are not logged.")
    sample: float = Field(
        1.0, ge=0, le=1, description="Share of requests that is logged; 5xx always are."
    )
    max_rate: int = Field(
        5000, ge=0, description="Printed lines a second; more are dropped and counted. 0: any."
    )
    file: Text = Field(
        "", description="A file for what the workers print, besides the daemon's log."
    )
    max_size: SizeOrNone = Field(
        None, description="Size at which the file is renamed to .1, and begun anew."
    )
    keep: int = Field(5, ge=0, le=1000, description="Renamed files that are kept.")


class Proxy(Table):
    """Trust in the headers that a reverse proxy sets."""

    headers: bool = Field(False, description="Take client and scheme from X-Forwarded-*.")
    trusted: Annotated[tuple[Peer, ...], BeforeValidator(one_or_many), ONE_OR_MANY] = Field(
        ("127.0.0.1", "::1"),
        description='Addresses and networks that may set them; "unix": peers on a unix socket.',
    )


class UvicornOptions(Table):
    """Options that are passed through to Uvicorn."""

    http: Literal["auto", "h11", "httptools"] = Field("auto", description="HTTP implementation.")
    loop: Literal["auto", "asyncio", "uvloop"] = Field("auto", description="Event loop.")
    ws: Literal["auto", "none", "websockets", "websockets-sansio", "wsproto"] = Field(
        "auto", description="WebSocket implementation."
    )
    lifespan: Literal["auto", "on", "off"] = Field("auto", description="ASGI lifespan protocol.")
    ws_max_size: Size = Field(16777216, description="One message of a WebSocket.")
    ws_ping_interval: DurationOrNone = Field(20.0, description="Between two pings of a WebSocket.")
    ws_ping_timeout: DurationOrNone = Field(20.0, description="For the answer to a ping.")


class Tls(Table):
    """TLS, ended in the workers."""

    certfile: Text = Field("", description="Certificate chain in PEM.")
    keyfile: Text = Field("", description="Private key in PEM; empty: certfile has it too.")
    keyfile_password: Text = Field("", description="Password of an encrypted key.")
    ca_certs: Text = Field("", description="Certificates that client certificates are checked by.")
    client_auth: Literal["none", "optional", "required"] = Field(
        "none", description="Whether clients must show a certificate."
    )
    min_version: Literal["TLSv1.2", "TLSv1.3"] = Field("TLSv1.2", description="Oldest version.")
    ciphers: Text = Field("", description="OpenSSL cipher list for TLS 1.2; empty: its default.")
    rotate: bool = Field(
        True, description="Serve new certificate files to new connections without a restart."
    )

    @property
    def key_source(self) -> str:
        """The file that has the private key."""
        return self.keyfile or self.certfile


class Dependency(Table):
    """Another service that must be there first."""

    service: Text = Field(description="Name of the service.")
    condition: Literal["ready", "started", "completed"] = Field(
        "ready", description="What it must have reached before this service starts."
    )


def _dependencies(value: object) -> object:
    value = one_or_many(value)
    if not isinstance(value, list | tuple):
        return value
    return tuple({"service": item} if isinstance(item, str) else item for item in value)


class EnvFile(Table):
    """A file of environment variables."""

    path: Word = Field(description="The file.")
    required: bool = Field(True, description="Whether it has to be there.")


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

    factory: bool = Field(False, description="The attribute is a function that makes the app.")
    interface: Literal["auto", "asgi3", "asgi2", "wsgi"] = Field(
        "auto", description="What kind of application it is."
    )
    directory: Text = Field(".", description="Working directory, first on sys.path.")
    python: Text = Field(
        "", description="Interpreter of another virtual environment; empty: servd's own."
    )
    kind: Literal["service", "task"] = Field(
        "service", description="Runs on, or runs to its end before its dependents start."
    )
    run: Literal["always", "once"] = Field(
        "always", description="Whether a task runs again before a dependent rolls."
    )
    socket: SocketOptions = Field(SocketOptions(), description="Mode and owner of unix sockets.")
    backlog: int = Field(2048, ge=1, le=65535, description="Connections that may wait.")
    public_url: Text = Field("", description="Where people reach it, for status pages.")
    workers: CountOrAuto = Field(
        1, description='Processes; "auto": one for each usable CPU; 0: kept stopped.'
    )
    threads: int = Field(40, ge=1, le=10000, description="Threads for sync endpoints.")
    preload: bool = Field(False, description="Import the app once and fork the workers from it.")
    gpus: Gpus = Field(0, description="GPUs per worker; 0.5 shares one; a list of ids pins.")
    cpu_affinity: Affinity = Field((), description='CPU ids, or "spread": one worker a CPU.')
    timeouts: Timeouts = Field(Timeouts(), description="How long things may take.")
    limits: Annotated[Limits | None, Switchable] = Field(
        None, description="Limits of each worker; false: none."
    )
    health: Annotated[Health | None, Switchable] = Field(
        None, description="Health probes; false: none."
    )
    watchdog: DurationOrNone = Field(
        30.0, description="A worker whose event loop stops for this long is replaced."
    )
    ready: Readiness = Field(
        "auto", description='What makes a command ready; "5s": to be alive for so long.'
    )
    activation: Literal["auto", "fd", "self"] = Field(
        "auto", description="Who binds a command's address: servd (fd) or the program (self)."
    )
    stop_signal: StopSignal = Field("SIGTERM", description="The signal that drains a command.")
    stop_command: Command = Field(
        (), description="A program that drains a command, run instead of the signal."
    )
    restart: Restart = Field(Restart(), description="What happens when a worker dies.")
    rollout: Rollout = Field(Rollout(), description="How new workers replace old ones.")
    env: Environment = Field({}, description="Environment variables.")
    env_file: EnvFiles = Field(
        (), description="Files of NAME=value lines, as python-dotenv reads them."
    )
    env_passthrough: Annotated[tuple[Word, ...], BeforeValidator(one_or_many), ONE_OR_MANY] = Field(
        (), description="Names or globs taken over from the daemon's environment."
    )
    user: Text = Field("", description="User that the workers run as.")
    group: Text = Field("", description="Group that the workers run as.")
    umask: OctalModeOrNone = Field(None, description='File mode mask, as a string: "027".')
    rlimits: ResourceLimits = Field(
        {}, description="Resource limits, named as in getrlimit(2): nofile, nproc, as, core."
    )
    log: ServiceLog = Field(ServiceLog(), description="What the service logs.")
    proxy: Proxy = Field(Proxy(), description="Trust in the headers of a reverse proxy.")
    root_path: Text = Field("", description="Path that the app is mounted under.")
    uvicorn: UvicornOptions = Field(UvicornOptions(), description="Passed through to Uvicorn.")
    tls: Annotated[Tls | None, Switchable] = Field(None, description="TLS; false: none.")


class Defaults(ServiceBase):
    """What every service takes over, key by key."""


class Service(ServiceBase):
    """One service: what runs, where, how many, and what it needs."""

    app: Text = Field("", description='"module:attr" or "path/file.py:app".')
    command: Command = Field(
        (), description="A program and its arguments; a text is split into words. No shell runs it."
    )
    bento: Text = Field("", description="A BentoML service: import string, folder or tag.")
    listen: Listen = Field(
        (INTERNAL,),
        description='":3000", "unix:/run/x.sock", "fd:NAME", a list of these, or "internal".',
    )
    depends_on: Dependencies = Field((), description="Services that must be there first.")
    components: dict[str, Defaults] = Field(
        {}, description="Settings of the parts of a BentoML service, by class name."
    )
