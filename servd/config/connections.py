"""The tables of a service about connections: sockets, timeouts, proxies, Uvicorn and TLS."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from servd.config.network import Peer
from servd.config.scalars import (
    ONE_OR_MANY,
    Duration,
    DurationOrNone,
    OctalMode,
    Size,
    Text,
    one_or_many,
)
from servd.config.table import Table


class SocketOptions(Table):
    """Mode and owner of the unix sockets that a service listens on."""

    mode: OctalMode = Field("0600", description="Permissions of the socket file, in octal.")
    owner: Text = Field(
        "", description="User that owns the socket file. Empty: the user of the daemon."
    )
    group: Text = Field("", description="Group of the socket file. Empty: the group of the daemon.")


class Timeouts(Table):
    """Time limits for workers and requests."""

    startup: Duration = Field(
        60.0,
        description="Time from the start of a worker until it is ready. Then it is killed. "
        "A BentoML service has no such limit unless it is set.",
    )
    stall: DurationOrNone = Field(
        None,
        description="While a worker that starts makes progress (it reads files, or takes memory of "
        "a GPU), it may take up to ten times as long as startup; after so long without progress it "
        "is killed. none: startup alone counts. Not set: none, or 60s for a service with gpus.",
    )
    request: DurationOrNone = Field(
        None,
        description="Time from the arrival of a request to the first byte of the response. "
        "Then the client gets 504. none: no limit.",
    )
    request_total: DurationOrNone = Field(
        None,
        description="Time from the arrival of a request to the last byte of the response. "
        "none: no limit.",
    )
    headers: Duration = Field(20.0, description="Time to receive the headers of a request.")
    body: Duration = Field(
        60.0, description="Longest pause while the body of a request is received."
    )
    keep_alive: Duration = Field(5.0, description="Time until an idle connection is closed.")
    drain: Duration = Field(
        30.0,
        description="Time for requests in flight when a worker stops or is replaced. "
        "For a command: time from its stop signal to SIGKILL.",
    )
    shutdown: Duration = Field(
        5.0,
        description="Time for the lifespan shutdown of an app after the drain. Then SIGKILL.",
    )


class Proxy(Table):
    """Trust in the headers that a reverse proxy sets."""

    headers: bool = Field(
        False, description="Take the client address and the scheme from X-Forwarded-* headers."
    )
    trusted: Annotated[tuple[Peer, ...], BeforeValidator(one_or_many), ONE_OR_MANY] = Field(
        ("127.0.0.1", "::1"),
        description="Addresses and networks whose X-Forwarded-* headers are trusted. "
        '"unix": peers on a unix socket. "*": every peer.',
    )


class UvicornOptions(Table):
    """Options that are passed to Uvicorn."""

    http: Literal["auto", "h11", "httptools"] = Field("auto", description="HTTP implementation.")
    loop: Literal["auto", "asyncio", "uvloop"] = Field("auto", description="Event loop.")
    ws: Literal["auto", "none", "websockets", "websockets-sansio", "wsproto"] = Field(
        "auto", description="WebSocket implementation."
    )
    lifespan: Literal["auto", "on", "off"] = Field("auto", description="ASGI lifespan protocol.")
    ws_max_size: Size = Field(16777216, description="Largest WebSocket message.")
    ws_ping_interval: DurationOrNone = Field(
        20.0, description="Time between two WebSocket pings. none: no pings."
    )
    ws_ping_timeout: DurationOrNone = Field(
        20.0,
        description="Time to wait for the answer to a WebSocket ping. Then the connection is "
        "closed. none: no limit.",
    )


class Tls(Table):
    """TLS, terminated in the workers."""

    certfile: Text = Field("", description="PEM file with the certificate chain. Required.")
    keyfile: Text = Field(
        "", description="PEM file with the private key. Empty: certfile contains the key too."
    )
    keyfile_password: Text = Field("", description="Password of an encrypted private key.")
    ca_certs: Text = Field(
        "", description="PEM file with the certificates that verify client certificates."
    )
    client_auth: Literal["none", "optional", "required"] = Field(
        "none", description="Whether clients must present a certificate."
    )
    min_version: Literal["TLSv1.2", "TLSv1.3"] = Field(
        "TLSv1.2", description="Oldest TLS version that is accepted."
    )
    ciphers: Text = Field(
        "", description="OpenSSL cipher list for TLS 1.2. Empty: the default of OpenSSL."
    )
    rotate: bool = Field(
        True, description="Use changed certificate files for new connections without a restart."
    )

    @property
    def key_source(self) -> str:
        """The file that contains the private key."""
        return self.keyfile or self.certfile
