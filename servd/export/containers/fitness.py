"""What a graph says that does not hold once its services run in pods of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator

from servd.config.service import Service
from servd.config.tree import Path
from servd.core.diagnostics import Diagnostic
from servd.export.containers.names import variable
from servd.export.containers.options import ExportSource
from servd.export.report import CODE, context_of

_HERE = re.compile(r"(?<![\w.-])(?:127\.0\.0\.1|localhost|\[::1\]):(\d{1,5})(?!\d)")


def addresses_of_this_machine(source: ExportSource, place: str = "pod") -> Iterator[Diagnostic]:
    """Yields a warning for each text with the address of another service on this machine, such as
    `redis://127.0.0.1:6379`: in a pod nobody answers there.
    """
    config, checked = source.as_written.config, context_of(source.loaded)
    listening = {
        address.port: name
        for name, service in config.services.items()
        for address in service.listen
        if address.kind == "tcp" and address.port
    }
    for name, service in config.services.items():
        texts: list[tuple[Path, str]] = [
            (("services", name, "env", key), value)
            for key, value in (config.defaults.env | service.env).items()
        ]
        texts += [(("services", name, "command"), word) for word in service.command]
        for path, text in texts:
            for found in _HERE.finditer(text):
                other = listening.get(int(found[1]), name)
                if other != name:
                    message = f'{found[0]} is service "{other}", which runs in another {place}'
                    hint = f"take the address from SERVD_DEP_{variable(other)}, or use --whole"
                    yield checked.problem(path, message, hint, severity="warning", code=CODE)


def dependencies_out_of_reach(source: ExportSource, place: str = "pod") -> Iterator[Diagnostic]:
    """Yields a warning for each dependency that is reached in another way than within one servd: by
    HTTPS where it terminates TLS, and not at all where it is a component.
    """
    config, checked = source.as_written.config, context_of(source.loaded)
    for name, service in config.services.items():
        for index, each in enumerate(service.depends_on):
            other = config.services.get(each.service)
            if other is None and each.service.partition(".")[0] != name:
                message = f'component "{each.service}" is reached in its own {place}: use --whole'
            elif other is not None and other.tls is not None and not other.external:
                message = f'service "{each.service}" is reached by HTTPS: its certificate must'
                message += f" be valid for the name of its service there, and known to this {place}"
            else:
                continue
            path: Path = ("services", name, "depends_on", index)
            yield checked.problem(path, message, severity="warning", code=CODE)


def paths_elsewhere(source: ExportSource) -> Iterator[Diagnostic]:
    """Yields a warning for each folder of code, and for each file with a request, that is not below
    the folder of the configuration.
    """
    checked = context_of(source.loaded)
    for name, service in source.as_written.config.services.items():
        if service.external:
            continue
        for keys, place in _paths_of(service):
            if place and not f"{place}/".startswith(f"{source.folder.rstrip('/')}/"):
                path: Path = ("services", name, *keys)
                message = f"{place} is not below {source.folder}: the image must have it there"
                yield checked.problem(path, message, severity="warning", code=CODE)


def _paths_of(service: Service) -> Iterator[tuple[Path, str]]:
    yield ("directory",), service.directory
    if service.warmup is not None:
        yield ("warmup", "request"), service.warmup.request
    if service.health is not None:
        yield ("health", "request"), service.health.request
