"""Checks that an address has one owner, however it is spelled. Impure: it resolves names."""

from __future__ import annotations

import ipaddress
import itertools
import os
import socket
from collections.abc import Iterator

from servd.config.tree import Path
from servd.config.validation_context import ValidationContext
from servd.core import bind
from servd.core.address import EVERY_V4, EVERY_V6, Address
from servd.core.diagnostics import Diagnostic

_EVERY: dict[int, str] = {socket.AF_INET: EVERY_V4, socket.AF_INET6: EVERY_V6}


def check_addresses(checked: ValidationContext) -> Iterator[Diagnostic]:
    """Yields a mistake for each address that is bound twice: by services, or by the daemon."""
    for (first_path, first), (path, address) in itertools.combinations(_listeners(checked), 2):
        if overlap(first, address):
            other = checked.layers.nearest(first_path)[0].place
            whose = "it already" if first_path[1] == path[1] else f"services.{first_path[1]}"
            whose = whose if first_path[0] == "services" else f"admin.{first_path[1]}"
            message = f"{address} is taken: {whose} listens on {first} ({other})"
            yield checked.problem(path, message, code="address")


def _listeners(checked: ValidationContext) -> list[tuple[Path, Address]]:
    config = checked.config
    found: list[tuple[Path, Address]] = [
        (("services", name, "listen", index), address)
        for name, service in sorted(config.services.items())
        for index, address in enumerate(service.listen)
    ]
    own = {"listen": config.admin.listen, "metrics": config.admin.metrics}
    if config.admin.enabled:
        found += [(("admin", key), address) for key, address in own.items() if address is not None]
    return found


def overlap(first: Address, second: Address) -> bool:
    """Returns whether the addresses cannot be bound at the same time."""
    if first.kind != second.kind or first.kind == "internal":
        return False
    if first.kind == "unix":
        return _real(first.path) == _real(second.path)
    if first.kind == "fd":
        return first == second
    if first.port != second.port or first.port == 0:
        return False
    return any(
        ours == theirs or (family == other and _EVERY.get(family) in (ours, theirs))
        for family, ours in _hosts(first.host)
        for other, theirs in _hosts(second.host)
    )


def _real(path: str) -> str:
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def _hosts(host: str) -> list[tuple[int, str]]:
    """Returns families and numeric hosts, as they will be bound; a name that cannot be resolved as
    it is written (binding it will fail).
    """
    try:
        numeric = ipaddress.ip_address(host)
    except ValueError:
        try:
            return bind.hosts(Address("tcp", host))
        except OSError:
            return [(-1, host.lower())]
    return [(socket.AF_INET if numeric.version == 4 else socket.AF_INET6, str(numeric))]
