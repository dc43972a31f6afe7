"""Addresses that a service listens on: `:3000`, `[::]:3000`, `unix:/run/x.sock`, `fd:web`."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import replace
from typing import Literal

from servd.core.quick_dataclass import dataclass

EVERY_V4, EVERY_V6 = "0.0.0.0", "::"  # noqa: S104  # names of the wildcard addresses

UNIX_PATH_LIMIT = 107
"""Longest path of a unix socket in bytes (unix(7): sun_path is 108 with its NUL)."""

_HOST_NAME = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_-]+)*\.?"
)


class AddressError(ValueError):
    """The text is not an address; the message shows a valid form."""


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a service.

    An empty `host` is every interface; `port` 0 asks the system for a free port. "unix" sets `path`
    (the socket's path), "fd" sets `name` (the descriptor's name in LISTEN_FDNAMES).
    """

    kind: Literal["tcp", "unix", "fd", "internal"]
    host: str = ""
    port: int = 0
    path: str = ""
    name: str = ""

    def __str__(self) -> str:
        if self.kind == "tcp":
            host = f"[{self.host}]" if ":" in self.host else self.host
            return f"{host}:{self.port}"
        if self.kind == "unix":
            return f"unix:{self.path}"
        return f"fd:{self.name}" if self.kind == "fd" else "internal"

    @property
    def from_here(self) -> Address:
        """Returns the address that a process of this machine connects to."""
        loopback = {"": "127.0.0.1", EVERY_V4: "127.0.0.1", EVERY_V6: "::1"}
        return replace(self, host=loopback.get(self.host, self.host))


INTERNAL = Address("internal")


def is_host(text: str) -> bool:
    """Returns whether `text` is a host name or an IP address, which has no brackets."""
    try:
        return bool(ipaddress.ip_address(text))
    except ValueError:
        is_number = re.fullmatch(r"[\d.]+", text) is not None
        return not is_number and _HOST_NAME.fullmatch(text) is not None


def parse_address(text: str) -> Address:
    """Parses an address. Raises `AddressError` when `text` is not one."""
    if text == "internal":
        return INTERNAL
    if text.startswith("unix:"):
        return _unix(text.removeprefix("unix:"))
    if text.startswith("fd:"):
        name = text.removeprefix("fd:")
        if not re.fullmatch(r"[^\s:\x00-\x1f]{1,255}", name):
            raise AddressError(f'"{text}" has no valid name: write "fd:NAME", as in LISTEN_FDNAMES')
        return Address("fd", name=name)
    return _tcp(text)


def _unix(path: str) -> Address:
    if not path:
        raise AddressError('"unix:" has no path: write "unix:/run/x.sock"')
    if "\0" in path:
        raise AddressError("the path of a unix socket cannot contain a NUL character")
    if (size := len(path.encode())) > UNIX_PATH_LIMIT:
        limit = f"the path of a unix socket can have at most {UNIX_PATH_LIMIT} bytes"
        raise AddressError(f"{limit}, got {size}")
    return Address("unix", path=path)


def _as_an_address(text: str) -> str:
    """Returns the address that a URL, a path, ports of Compose or a bare IPv6 address mean."""
    url = re.fullmatch(r"(?:\w+://)?([\w.\-\[\]:]*:\d{1,5})(/.*)?", text)
    if url and url[1] != text:
        return url[1]
    if text.startswith(("/", "./", "../")):
        return f"unix:{text}"
    if bare := re.fullmatch(
        r"([0-9a-fA-F:]*::[0-9a-fA-F:]*|(?:[0-9a-fA-F]+:){7}[0-9a-fA-F]+):(\d{2,5})", text
    ):
        return f"[{bare[1]}]:{bare[2]}"
    return ""


def _tcp(text: str) -> Address:
    match = re.fullmatch(r"(?P<host>\[[^\]]*\]|[^:\[\]/]*):(?P<port>\d{1,6})", text)
    if match is None:
        if better := _as_an_address(text):
            raise AddressError(f'"{text}" is not an address: write "{better}"')
        if re.fullmatch(r"[\w.\-]+|\[.*\]", text):
            raise AddressError(f'"{text}" has no port: write "{text}:8000"')
        raise AddressError(
            f'"{text}" is not an address: write ":3000", "localhost:3000", "[::]:3000",'
            ' "unix:/run/x.sock", "fd:NAME" or "internal"'
        )
    port = int(match["port"])
    if port > 65535:
        raise AddressError(f"{port} is not a port: expected 0 to 65535")
    host = match["host"]
    if host.startswith("["):
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise AddressError(f'"[{host}]" is not an IPv6 address') from None
    elif re.fullmatch(r"\d+", host):
        raise AddressError(f'"{text}" has two ports: write ":{port}", the port to listen on')
    elif re.fullmatch(r"[\d.]+", host):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise AddressError(f'"{host}" is not an IPv4 address') from None
    elif host and host != "*" and not _HOST_NAME.fullmatch(host):
        raise AddressError(f'"{host}" is not a host name')
    return Address("tcp", host="" if host == "*" else host, port=port)
