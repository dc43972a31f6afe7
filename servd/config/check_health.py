"""Rules about the requests that show the health of workers."""

from __future__ import annotations

from collections.abc import Iterator

from servd.config.scalars import shown
from servd.config.service import Service
from servd.config.tree import Path
from servd.config.validation_context import ValidationContext
from servd.core.diagnostics import Diagnostic

_REQUEST = ("path", "method", "body")
_OF_HTTP = (*_REQUEST, "request", "expect")
_WITHOUT_BODY = ("GET", "HEAD")


def probes_make_sense(checked: ValidationContext) -> Iterator[Diagnostic]:
    """A probe is one thing: a file, or a path with method and body, or no HTTP request at all."""
    for name, service in checked.config.services.items():
        if service.health is not None and service.kind != "task":
            yield from _probe_makes_sense(checked, ("services", name, "health"), service)


def _probe_makes_sense(
    checked: ValidationContext, path: Path, service: Service
) -> Iterator[Diagnostic]:
    health = service.health
    assert health is not None
    written = {key for key in type(health).model_fields if checked.is_own((*path, key))}
    other = "tcp" if health.tcp is not None else "command" if health.command else ""
    if other and not service.app and not service.bento:
        for key in _OF_HTTP:
            if key in written:
                message = f"cannot be combined with {other}, which is no HTTP request"
                yield checked.problem((*path, key), message, at_key=True)
    elif health.request:
        for key in _REQUEST:
            if key in written:
                message = f"cannot be combined with request: write it into {health.request}"
                yield checked.problem((*path, key), message, at_key=True)
    elif "body" in written and health.body and health.method in _WITHOUT_BODY:
        message = f"a {health.method} request has no body"
        yield checked.problem((*path, "body"), message, 'write method = "POST"', at_key=True)
    if "busy" in written and health.busy == "trust" and service.command:
        message = f"{shown('trust')} applies to apps only: servd counts the requests of no command"
        yield checked.problem((*path, "busy"), message)
