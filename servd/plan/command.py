"""Placeholders of a command: `{port}`, `{host}`, `{uds}`, `{fd}`, `{service}`, `{worker}`."""

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
    """What each placeholder stands for; `{worker}` is known at the start of a worker only."""
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
    """The arguments with every known placeholder replaced; other braces stay as they are."""
    return tuple(
        _PLACEHOLDER.sub(lambda match: names.get(match[1], match[0]), argument)
        for argument in command
    )
