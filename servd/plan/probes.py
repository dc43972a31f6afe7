"""How workers, and services that run elsewhere, are asked whether they are ready and healthy."""

from __future__ import annotations

import dataclasses
from urllib.parse import quote, urlsplit

from servd.config.bento.declared import Part
from servd.config.check_runners import binds_itself
from servd.config.http_file import RequestFile, is_json
from servd.config.service import Service
from servd.config.worker_tables import Health
from servd.core.address import Address
from servd.plan.command import placeholders, resolve
from servd.plan.host import Host
from servd.plan.model import HealthPlan, ReadyPlan, SocketPlan, WarmupPlan

_BENTO_READINESS = "/readyz"
_HTTP_PORTS = {"http": 80, "https": 443}
_OF_TARGETS = "!#$%&'()*+,/:;=?@[]~"
"""Characters of a path in the file that need no quoting."""


def ready_plan(
    name: str,
    given: Service,
    addresses: tuple[Address, ...],
    sockets: tuple[SocketPlan, ...],
    host: Host,
) -> ReadyPlan:
    """Returns when a worker is ready. `addresses` are its own, `sockets` those that servd binds."""
    health = given.health
    patience = health.start_failures * health.interval if health is not None else None
    if given.app or given.bento:
        return ReadyPlan("notify", patience=patience)
    address = _first_address(addresses, sockets)
    if given.kind == "task":
        return ReadyPlan("exit")
    if not isinstance(given.ready, str):
        return ReadyPlan("started", address, proof=given.ready)
    mode = given.ready
    asked = health_plan(name, given, addresses, sockets, host)
    if mode in ("auto", "http") and asked is not None and (asked.tcp or asked.command):
        return ReadyPlan("http", address, patience=patience, health=asked)
    if mode == "auto" and not binds_itself(given):
        mode = "started"  # another worker or the socket's queue may answer
    elif mode == "auto":
        mode = "http" if health is not None else "port"
    if address is None and mode in ("http", "port"):
        mode = "started"
    if health is None:
        return ReadyPlan(mode, address)
    is_plain = asked is None or not (asked.request or asked.expect)
    return ReadyPlan(
        mode,
        address,
        health.path,
        health.host,
        health.timeout,
        patience,
        health=None if is_plain or mode != "http" else asked,
    )


def health_plan(
    name: str,
    given: Service,
    addresses: tuple[Address, ...],
    sockets: tuple[SocketPlan, ...],
    host: Host,
) -> HealthPlan | None:
    """Returns None for a task and for a program without an address: neither can be probed."""
    health = given.health
    if health is None or given.kind == "task":
        return None
    address = _first_address(addresses, sockets)
    if given.app or given.bento:
        address = None
    elif health.command or health.tcp is not None:
        names = placeholders(name, addresses, sockets)
        return HealthPlan(
            health.tcp,
            "",
            "",
            health.interval,
            health.timeout,
            health.failures,
            tcp=health.tcp is not None,
            command=resolve(health.command, names),
        )
    elif address is None or not (address.path or address.port):
        return None
    asked = HealthPlan(
        address, health.path, health.host, health.interval, health.timeout, health.failures
    )
    return dataclasses.replace(
        _asked_by(asked, health, host), trusts=health.busy == "trust" and address is None
    )


def readiness_plan(part: Part | None) -> HealthPlan | None:
    """Returns how the code of a BentoML service is asked whether it is ready; None where it says
    nothing, or the file sets a probe.
    """
    if part is None or not part.asks_ready:
        return None
    default = Health()
    times = (default.interval, default.timeout, default.failures)
    return HealthPlan(None, _BENTO_READINESS, default.host, *times, only_readiness=True)


def warmup_plan(given: Service, addresses: tuple[Address, ...], host: Host) -> WarmupPlan | None:
    """Returns None also where the request cannot be read: that is a mistake of the file. A program
    is asked at its own address; one that has none is left out of the defaults.
    """
    warmup = given.warmup
    request = host.requests.get(warmup.request) if warmup is not None else None
    if warmup is None or request is None or given.kind == "task":
        return None
    if given.command and not binds_itself(given):
        return None  # anyone may answer there
    name = given.health.host if given.health is not None else "localhost"
    address = _first_address(addresses, ()) if given.command else None
    return WarmupPlan(request, address, name, warmup.times, warmup.timeout)


def _asked_by(plan: HealthPlan, health: Health, host: Host) -> HealthPlan:
    """Returns the plan with the request of its file, or with its own method and body."""
    if health.request:
        request = host.requests.get(health.request)  # one that cannot be read is a mistake
    elif health.method != "GET" or health.body:
        target = quote(health.path, safe=_OF_TARGETS)
        body = health.body.encode()
        request = RequestFile(health.method, target, (), body, is_json(body))
    else:
        request = None
    return dataclasses.replace(plan, request=request, expect=health.expect)


def is_plain(health: Health) -> bool:
    """Returns whether the probe is the GET of a path that is there for probes alone: requests to
    it are no work of the app.
    """
    return not health.request and health.method == "GET"


def external_health(given: Service, defaults: HealthPlan, host: Host) -> HealthPlan:
    """Returns how a service that runs elsewhere is asked: over HTTP, with the host of its URL
    unless the file names one, or (without `health`) by a connection, as in `defaults`.
    """
    url = urlsplit(given.external)
    address = Address("tcp", host=url.hostname or "", port=url.port or _HTTP_PORTS[url.scheme])
    health = given.health
    if health is None:
        return HealthPlan(
            address, "", "", defaults.interval, defaults.timeout, defaults.failures, tcp=True
        )
    name = health.host if "host" in health.model_fields_set else url.netloc
    plan = HealthPlan(address, health.path, name, health.interval, health.timeout, health.failures)
    return _asked_by(plan, health, host)


def _first_address(
    addresses: tuple[Address, ...], sockets: tuple[SocketPlan, ...]
) -> Address | None:
    """Returns the first address of a program, or None."""
    return next(iter((*addresses, *(socket.address for socket in sockets))), None)
