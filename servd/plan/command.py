"""Placeholders in commands: `{port}`, `{host}`, `{uds}`, `{fd}`, `{service}`, `{worker}`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from servd.core.address import EVERY_V4, Address
from servd.plan.model import SocketPlan
from servd.wire.names import FIRST_FD

_PLACEHOLDER = re.compile(r"\{(port|host|uds|fd|worker|service)\}")


def placeholders(
    service: str, addresses: Sequence[Address], sockets: Sequence[SocketPlan]
) -> dict[str, str]:
    """Returns the value of each placeholder, without `{worker}`, known at a worker's start."""
    names = {"service": service}
    for address in reversed(addresses):
        if address.kind == "tcp":
            names |= {"host": address.host or EVERY_V4, "port": str(address.port)}
        elif address.kind == "unix":
            names["uds"] = address.path
    if sockets:
        names["fd"] = str(FIRST_FD)
    return names


def resolve(command: Sequence[str], names: Mapping[str, str]) -> tuple[str, ...]:
    """Returns the arguments with known placeholders replaced; other braces are kept."""
    return tuple(_PLACEHOLDER.sub(lambda m: names.get(m[1], m[0]), part) for part in command)
