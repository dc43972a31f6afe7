"""Undeclared addresses that programs bind, found while they run and carried into plans.

They make no difference between plans, but decide how a change is made: an old and a new worker
cannot both bind an address.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Container, Iterable, Iterator

from servd.plan.model import FoundAddress, Plan, ServicePlan


def found_addresses(
    addresses: Iterable[str],
    plan: ServicePlan,
    chosen_ports: Container[int],
    temporary: str,
    again: Container[str] = (),
    texts: Iterable[str] = (),
) -> tuple[FoundAddress, ...]:
    """Returns what a program of `plan` listens on. `chosen_ports` are those that the system chooses
    from: one of them is only fixed if the command, the environment or `texts` (of files that the
    command names) have it, or if an earlier process had it too (`again`). Unix sockets in the
    `temporary` folder are a program's own business, unless they are named.
    """
    text = "\n".join((*plan.command, *plan.environment.values(), *texts))
    found: list[FoundAddress] = []
    for address in sorted(addresses):
        if address.startswith("unix:"):
            path = address.removeprefix("unix:")
            if path in text or not path.startswith(temporary + os.sep):
                found.append(FoundAddress(address, fixed=True))
            continue
        port = address.rpartition(":")[2]
        named = re.search(rf"(?<!\d){port}(?!\d)", text) is not None
        fixed = named or address in again or int(port) not in chosen_ports
        found.append(FoundAddress(address, fixed=fixed))
    return tuple(found)


def with_found(plan: Plan, running: Plan) -> Plan:
    """Returns `plan` with what was found of the same programs that are `running`."""
    before = running.by_name
    return dataclasses.replace(
        plan,
        services=tuple(_carried(service, before.get(service.name)) for service in plan.services),
    )


def _carried(service: ServicePlan, before: ServicePlan | None) -> ServicePlan:
    if before is None or not before.found or before.command != service.command:
        return service
    return dataclasses.replace(service, found=before.found)


def too_many_workers(plan: Plan, running: Plan) -> Iterator[tuple[str, str]]:
    """Yields services that get a second worker which cannot bind, each with the reason."""
    before = running.by_name
    for service in plan.services:
        fixed = [item.address for item in service.held]
        had = before[service.name].workers if service.name in before else 0
        if fixed and service.workers > max(1, had):
            yield service.name, one_worker_reason(fixed)


def one_worker_reason(fixed: Iterable[str]) -> str:
    """Returns why a program cannot have a second worker."""
    return f"the program itself binds {', '.join(fixed)}, so a second worker cannot"
