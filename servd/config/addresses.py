"""Checks that each address has one owner, in any spelling. Impure: it resolves names."""

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
    """Yields a mistake for each address that services or the daemon bind twice."""
    alike: dict[object, list[tuple[Path, Address]]] = {}
    for path, address in _listeners(checked):
        if (key := _key(address)) is not None:
            alike.setdefault(key, []).append((path, address))
    for group in alike.values():
        for (first_path, first), (path, address) in itertools.combinations(group, 2):
            if first.kind != "tcp" or _overlap(first.host, address.host):
                yield _taken(checked, path, address, first_path, first)


def _taken(
    checked: ValidationContext, path: Path, address: Address, first_path: Path, first: Address
) -> Diagnostic:
    other = checked.layers.nearest(first_path)[0].place
    whose = "this service" if first_path[1] == path[1] else f"services.{first_path[1]}"
    whose = whose if first_path[0] == "services" else f"admin.{first_path[1]}"
    message = f"{address} is already in use: {whose} listens on {first} ({other})"
    return checked.problem(path, message, code="address")


def _key(address: Address) -> object:
    """Returns a key that is equal for addresses that can conflict; None if an address cannot."""
    if address.kind == "tcp":
        return address.port or None
    if address.kind == "unix":
        folder, name = os.path.split(address.path)
        return os.path.join(os.path.realpath(folder), name)
    return ("fd", address.name) if address.kind == "fd" else None


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


def _overlap(first: str, second: str) -> bool:
    """Returns whether two hosts cannot be bound with the same port."""
    return any(
        ours == theirs or (family == other and _EVERY.get(family) in (ours, theirs))
        for family, ours in _hosts(first)
        for other, theirs in _hosts(second)
    )


def _hosts(host: str) -> list[tuple[int, str]]:
    """Returns the families and numeric hosts that will be bound; an unresolvable name unchanged
    (binding it will fail).
    """
    try:
        numeric = ipaddress.ip_address(host)
    except ValueError:
        try:
            return bind.hosts(Address("tcp", host))
        except OSError:
            return [(-1, host.lower())]
    return [(socket.AF_INET if numeric.version == 4 else socket.AF_INET6, str(numeric))]
