"""What a configuration says that Ray Serve would do otherwise, beyond single keys."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence

from servd.config.service import Service
from servd.config.tree import Path
from servd.config.validation_context import ValidationContext
from servd.core.address import Address
from servd.core.diagnostics import Diagnostic
from servd.core.secrets import mask_values
from servd.export.containers.options import ExportSource
from servd.export.report import CODE, context_of
from servd.plan.model import ServicePlan

_SHOWN = "the configuration of Ray is shown to everybody who sees its dashboard"


def secrets_in_the_open(
    source: ExportSource, services: Sequence[ServicePlan]
) -> Iterator[Diagnostic]:
    """Yields a mistake for each secret that the configuration of Ray would hold."""
    checked = context_of(source.loaded)
    secrets = source.loaded.secrets | source.as_written.secrets
    for service in services:
        for variable, value in service.declared_env.items():
            path: Path = ("services", service.name, "env", variable)
            if mask_values(value, checked.source_path(path), secrets) != value:
                hint = f'set {variable} on the nodes, and write env_passthrough = ["{variable}"]'
                message = f"not carried over to Ray Serve: a secret, and {_SHOWN}"
                yield checked.problem(path, message, hint, at_key=True, code=CODE)
        for each in service.depends_on:
            other = source.loaded.config.services[each.service]
            path = ("services", each.service, "external")
            if other.external and mask_values(other.external, path, secrets) != other.external:
                message = f"not carried over to Ray Serve: it has a secret, and {_SHOWN}"
                yield checked.problem(path, message, code=CODE)


def paths_elsewhere(source: ExportSource, services: Sequence[ServicePlan]) -> Iterator[Diagnostic]:
    """Yields a warning for each directory that the package of the code does not have."""
    checked = context_of(source.loaded)
    for service in services:
        if service.directory != source.folder and not service.directory.startswith(
            f"{source.folder}/"
        ):
            message = "not below the folder of the configuration: every node must have it"
            path: Path = ("services", service.name, "directory")
            yield checked.problem(path, message, severity="warning", code=CODE)


class PublicServices:
    """The services with addresses, in the order of the file: all at one port of each node."""

    def __init__(self, source: ExportSource, services: Sequence[ServicePlan]) -> None:
        exported = {service.name for service in services}
        config = source.loaded.config
        self.by_name: dict[str, Service] = {
            name: service
            for name, service in config.services.items()
            if name in exported and self._tcp(service)
        }
        self._checked: ValidationContext = context_of(source.loaded)

    @staticmethod
    def _tcp(service: Service) -> list[Address]:
        return [address for address in service.listen if address.kind == "tcp"]

    @property
    def first(self) -> Service | None:
        """The service at `/`, whose address is that of Ray's proxies."""
        return next(iter(self.by_name.values()), None)

    @property
    def address(self) -> Address:
        """The address of Ray's proxies."""
        assert self.first is not None
        return self._tcp(self.first)[0]

    def route(self, name: str) -> str | None:
        """Returns the `route_prefix` of a service."""
        if name not in self.by_name:
            return None
        return "/" if self.by_name[name] is self.first else f"/{name}"

    def problems(self) -> Iterator[Diagnostic]:
        """Yields what differs from the addresses in the file."""
        for name, service in self.by_name.items():
            for index, address in enumerate(self._tcp(service)):
                path: Path = ("services", name, "listen", index)
                if is_narrower(address.host, self.address.host):
                    message = f"not carried over to Ray Serve: {address} would be reached at"
                    message += f" {self.address.host or 'every interface'} as {self.address} is"
                    yield self._checked.problem(path, message, code=CODE)
                elif service is not self.first:
                    message = f"Ray serves one port: {self.address}, below {self.route(name)}"
                    hint = "what the app redirects to must begin with that path"
                    yield self._checked.problem(path, message, hint, severity="warning", code=CODE)
                elif index:
                    message = f"not carried over to Ray Serve: it serves one port, {self.address}"
                    yield self._checked.problem(path, message, severity="warning", code=CODE)
            yield from self._tls(name, service)

    def _tls(self, name: str, service: Service) -> Iterator[Diagnostic]:
        assert self.first is not None
        here, there = ((s.tls.certfile, s.tls.key_source) if s.tls is not None else None
                       for s in (service, self.first))  # fmt: skip
        if here != there:
            key = "tls" if service.tls is not None else "listen"
            message = "not carried over to Ray Serve: all services have the certificate of the"
            message += " first one" if there else " first one, which has none"
            path: Path = ("services", name, key)
            yield self._checked.problem(path, message, at_key=True, code=CODE)


def is_narrower(host: str, than: str) -> bool:
    """Returns whether fewer clients reach `host` than reach `than`."""
    return _is_loopback(host) and not _is_loopback(than)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
