"""Certificates of the services in a container, and what it needs of services that run elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from servd.core.quick_dataclass import dataclass
from servd.export.containers.names import label
from servd.export.containers.options import TLS_FOLDER, ExportSource
from servd.export.containers.pods import PodPlan
from servd.export.containers.secrets import SecretFinder
from servd.wire.names import DEPENDENCIES

_FILES = {"certfile": "tls.crt", "keyfile": "tls.key", "ca_certs": "ca.crt"}


@dataclass(frozen=True, slots=True)
class Certificate:
    """What the `tls` of a service is in a container: the name of its Secret, and its files by the
    names in `folder`.
    """

    service: str
    secret: str
    files: Mapping[str, str]

    @property
    def folder(self) -> str:
        """The folder in the container."""
        return f"{TLS_FOLDER}/{self.service}"

    @property
    def has_key(self) -> bool:
        """Whether it is more than the certificates that verify others."""
        return "tls.crt" in self.files


def certificates_of(pod: PodPlan, source: ExportSource) -> list[Certificate]:
    """Returns the certificates that a container needs."""
    found: list[Certificate] = []
    for name in (*pod.services, *pod.external):
        tls = source.as_written.config.services[name].tls
        if tls is not None:
            files = {"certfile": tls.certfile, "keyfile": tls.key_source, "ca_certs": tls.ca_certs}
            given = {_FILES[key]: path for key, path in files.items() if path}
            secret = _secret_name(pod, name, [each.secret for each in found])
            found.append(Certificate(name, secret, given))
    return found


def in_the_container(name: str, tls: Mapping[str, Any]) -> dict[str, str]:
    """Returns the keys of `tls` that name files, with the paths in the container."""
    keys = {key for key in _FILES if tls.get(key)}
    keys |= {"keyfile"} if "certfile" in keys else set()
    return {key: f"{TLS_FOLDER}/{name}/{file}" for key, file in _FILES.items() if key in keys}


def addresses_elsewhere(pod: PodPlan, source: ExportSource, finder: SecretFinder) -> dict[str, str]:
    """Returns the variable that tells a program without servd how it reaches what runs elsewhere:
    `servd.depends` reads it.
    """
    entries: dict[str, dict[str, str]] = {}
    for name in pod.external:
        service = source.as_written.config.services[name]
        files = {key: getattr(service.tls, key) for key in _FILES} if service.tls else {}
        url = finder.replaced(service.external, ("services", name, "external"))
        entries[name] = {"url": url, **in_the_container(name, files)}
    return {DEPENDENCIES: json.dumps(entries)} if entries else {}


def _secret_name(pod: PodPlan, service: str, taken: list[str]) -> str:
    """Returns a name that no other pod's Secret has: a dot is in no name of a pod."""
    if service in pod.external:
        wanted = f"{pod.name}.{label(service)}-tls"
    else:
        wanted = f"{pod.name}-tls" if len(pod.services) == 1 else f"{pod.name}-{label(service)}-tls"
    found, number = wanted, 1
    while found in taken:
        number += 1
        found = f"{wanted}-{number}"
    return found
