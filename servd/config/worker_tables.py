"""The tables of a service about its workers: their number, limits, health, restarts and rollout."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from servd.config.network import OptionalAddress
from servd.config.scalars import (
    Duration,
    DurationOrNone,
    PercentOrCount,
    Size,
    SizeOrNone,
    Text,
)
from servd.config.table import Command, Table

URL_PATH = r"^/[^\s\x00-\x1f\x7f]*$"
HOST_HEADER = r"^[^\s\x00-\x1f\x7f]+$"
METHOD = r"^[A-Z]{1,20}$"
STATUS_CLASS = r"^([1-5]([0-9][0-9]|xx))?$"


class Limits(Table):
    """Limits of each worker."""

    concurrency: int = Field(
        0,
        ge=0,
        description="Most requests at the same time. Requests above it and the queue get 503. "
        "0: no limit.",
    )
    queue: int = Field(
        0, ge=0, description="Most requests that wait while concurrency is reached. 0: no queue."
    )
    max_requests: int = Field(
        0, ge=0, description="Replace a worker after this number of requests. 0: never."
    )
    max_requests_jitter: int = Field(
        0, ge=0, description="Largest random number that is added to max_requests."
    )
    max_age: DurationOrNone = Field(
        None, description="Replace a worker that is older than this. none: never."
    )
    memory: SizeOrNone = Field(
        None,
        description="Replace a worker that uses more memory than this, with the processes that it "
        "started. none: never.",
    )
    gpu_memory: SizeOrNone = Field(
        None,
        description="Replace a worker that uses more memory of a GPU than this, with the processes "
        "that it started. none: never.",
    )
    head: Size = Field(
        65536,
        description="Largest request line and headers of a request. Larger ones get 431.",
    )
    body: SizeOrNone = Field(
        None, description="Largest body of a request. Larger ones get 413. none: no limit."
    )


class Health(Table):
    """Health probes of each worker: an HTTP request (2xx and 3xx are healthy), or tcp or command
    for a program without HTTP.
    """

    path: Text = Field("/healthz", pattern=URL_PATH, description="Path of the HTTP request.")
    method: Text = Field("GET", pattern=METHOD, description="Method of the HTTP request.")
    body: Text = Field(
        "", description="Body of the HTTP request. One that is JSON is sent as application/json."
    )
    request: Text = Field(
        "",
        description="File with the HTTP request: a request line, headers, and a body. Instead of "
        "path, method and body.",
    )
    expect: Text = Field(
        "",
        pattern=STATUS_CLASS,
        description='Status that is healthy, such as "200" or "2xx". Empty: 2xx and 3xx.',
    )
    busy: Literal["trust", "probe"] = Field(
        "probe",
        description='While a worker answers requests: "probe" it all the same, or "trust" it, and '
        "replace one whose requests make no progress.",
    )
    tcp: OptionalAddress = Field(
        None, description="Probe a command by connecting to this address instead."
    )
    command: Command = Field(
        (), description="Probe a command by running this program instead. Exit status 0 is healthy."
    )
    host: Text = Field(
        "localhost", pattern=HOST_HEADER, description="Host header of the HTTP request."
    )
    interval: Duration = Field(10.0, description="Time between two probes.")
    timeout: Duration = Field(2.0, description="Time limit of one probe.")
    failures: int = Field(
        3, ge=1, description="Number of failures in a row after which a worker is replaced."
    )
    start_failures: int = Field(
        30, ge=0, description="Number of failures that are ignored while a worker starts."
    )


class Restart(Table):
    """What happens when a worker exits."""

    policy: Literal["always", "on-failure", "never"] = Field(
        "always",
        description='Which exits trigger a restart: "always", "on-failure" or "never".',
    )
    backoff: Duration = Field(
        0.5,
        description="Delay before the second restart in a row. The first restart of a worker that "
        "was ready is immediate.",
    )
    backoff_max: Duration = Field(30.0, description="Longest delay before a restart.")
    backoff_factor: float = Field(
        2.0, ge=1, le=100, description="Factor by which the delay grows after each failure."
    )
    reset_after: Duration = Field(
        60.0, description="Time for which a worker must run to reset the delay and the failures."
    )
    give_up_after: int = Field(
        0,
        ge=0,
        description="Number of failures in a row after which the service fails and restarts stop. "
        "0: never.",
    )


class Rollout(Table):
    """How a new generation of workers replaces the old one."""

    strategy: Literal["surge", "one-by-one", "recreate"] = Field(
        "surge",
        description='"surge": start new workers next to the old ones. "one-by-one": replace one '
        'worker at a time. "recreate": stop the old ones first (singletons, a model that fills '
        "its GPU).",
    )
    max_surge: PercentOrCount = Field(
        "100%", description="Most workers above `workers` at the same time, as a number or percent."
    )


class Autoscale(Table):
    """A number of workers that follows the load."""

    min: int = Field(1, ge=1, le=4096, description="Fewest workers.")
    max: int = Field(8, ge=1, le=4096, description="Most workers.")
    target_in_flight: float = Field(
        4.0,
        gt=0,
        description="Wanted mean of the requests that a worker has at the same time. Queued ones "
        "count.",
    )
    up_after: Duration = Field(
        10.0, description="Time for which more workers must have been needed before some are added."
    )
    down_after: Duration = Field(
        300.0,
        description="Time for which fewer workers must have been enough before some are removed.",
    )
