"""Addresses and peers in the configuration: parsers, printers and JSON Schemas."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field

from servd.config.scalars import (
    TEXT_SCHEMA,
    any_of,
    one_or_many,
    shown,
    spelled_as,
    unchanged,
    wrong,
)
from servd.core.address import Address, AddressError, is_host, parse_address


def _parse_address(value: object) -> Address:
    if isinstance(value, Address):
        return value
    if type(value) is int or (isinstance(value, str) and re.fullmatch(r"\d{1,6}", value)):
        value = f":{value}"
    if not isinstance(value, str):
        raise wrong(
            f'{shown(value)} is not an address: write "127.0.0.1:8000" or "unix:/run/x.sock"'
        )
    try:
        return parse_address(value)
    except AddressError as error:
        raise wrong(str(error)) from None


ListenAddress = Annotated[Address, *spelled_as(_parse_address, str, TEXT_SCHEMA)]
OptionalAddress = Annotated[
    Address | None,
    *spelled_as(
        lambda value: None if value in (None, "") else _parse_address(value),
        lambda address: str(address or ""),
        TEXT_SCHEMA,
    ),
]

_PORT = {"type": "integer", "minimum": 0, "maximum": 65535}
_ADDRESSES = {"type": "array", "items": {"anyOf": [TEXT_SCHEMA, _PORT]}, "minItems": 1}
Listen = Annotated[
    tuple[ListenAddress, ...],
    BeforeValidator(one_or_many),
    Field(min_length=1),
    any_of(TEXT_SCHEMA, _PORT, _ADDRESSES),
]


def _parse_url(value: object) -> str:
    """Returns the URL of a service that runs elsewhere, without a slash at its end."""
    if value == "":
        return ""
    if not isinstance(value, str):
        raise wrong(f'expected a URL such as "http://host2:8000", got {shown(value)}')
    if re.fullmatch(r"[\w.\-]+:\d{1,5}", value):
        raise wrong(f'{shown(value)} is not a URL: write "http://{value}"')
    try:
        url = urlsplit(value)
        host, _ = url.hostname, url.port  # raises for an invalid port
    except ValueError as error:
        raise wrong(f"{shown(value)} is not a URL: {error}") from None
    if url.scheme not in ("http", "https") or not host or re.search(r"[\s\x00-\x1f]", value):
        raise wrong(f'{shown(value)} is not a URL: write "http://host2:8000"')
    if not is_host(host):
        raise wrong(f"{shown(host)} is not a host name or an IP address")
    if url.username is not None or url.query or url.fragment:
        raise wrong('must be "http://HOST:PORT" or "https://HOST:PORT/PATH", and no more')
    return f"{url.scheme}{value[len(url.scheme) :]}".rstrip("/")


ExternalUrl = Annotated[str, *spelled_as(_parse_url, unchanged, TEXT_SCHEMA)]
"""Where a service that runs elsewhere answers."""


def _parse_peer(value: object) -> str:
    if not isinstance(value, str):
        raise wrong(f"expected text, got {shown(value)}")
    if value in ("unix", "*"):
        return value
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError:
        hint = 'write an address, a network such as "10.0.0.0/8", "unix", or "*" for every peer'
        raise wrong(f"{shown(value)} is not a peer: {hint}") from None
    if "/" in value and ipaddress.ip_address(value.partition("/")[0]) != network.network_address:
        raise wrong(
            f'{shown(value)} is an address in a network: write "{network}" for the whole network'
        )
    return value


Peer = Annotated[str, *spelled_as(_parse_peer, unchanged, TEXT_SCHEMA)]
"""A client that may be trusted, by its address."""
