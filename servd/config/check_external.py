"""Rules about services that run elsewhere, and about numbers of workers that follow the load."""

from __future__ import annotations

from collections.abc import Iterator

from servd.config.layers import OF_EXTERNAL
from servd.config.scalars import shown
from servd.config.service import Service
from servd.config.table import Table
from servd.config.tree import Path
from servd.config.validation_context import ValidationContext
from servd.core.diagnostics import Diagnostic


def externals_are_elsewhere(checked: ValidationContext) -> Iterator[Diagnostic]:
    """A service that runs elsewhere has no keys of workers; its TLS is that of a client."""
    for name, service in checked.config.services.items():
        if not service.external:
            continue
        path: Path = ("services", name)
        for key in _not_of_external(service):
            if checked.is_own((*path, *key)):
                message = "does not apply to an external service, which has no workers here"
                yield checked.problem((*path, *key), message, at_key=True)
        if service.tls is not None and not service.external.startswith("https:"):
            message = f"applies to https:// only, and the service is {shown(service.external)}"
            yield checked.problem((*path, "tls"), message, at_key=True)
        elif service.tls is not None and service.tls.keyfile and not service.tls.certfile:
            message = "requires certfile, the certificate that it belongs to"
            yield checked.problem((*path, "tls", "keyfile"), message, at_key=True)


def _not_of_external(service: Service) -> Iterator[Path]:
    for key in Service.model_fields:
        if key in ("app", "command", "bento"):
            continue  # a mistake of its own
        if key not in OF_EXTERNAL:
            yield (key,)
        elif isinstance(table := getattr(service, key), Table):
            yield from ((key, each) for each in type(table).model_fields
                        if each not in OF_EXTERNAL[key])  # fmt: skip


def autoscale_makes_sense(checked: ValidationContext) -> Iterator[Diagnostic]:
    """The number of workers follows the requests of an app, within limits, unless it is fixed."""
    defaults: Path = ("defaults",)
    shared = checked.config.defaults.autoscale is not None and checked.is_written(
        (*defaults, "workers")
    )
    if shared:
        message = "cannot be combined with workers"
        yield checked.problem((*defaults, "autoscale"), message, at_key=True)
    for name, service in checked.config.services.items():
        scale = service.autoscale
        if scale is None:
            continue
        path: Path = ("services", name, "autoscale")
        own = checked.is_own(path)
        if service.command and own:
            message = "applies to apps only: servd counts the requests of no other program"
            yield checked.problem(path, message, at_key=True)
        if own and checked.is_own(("services", name, "workers")):
            message = "cannot be combined with workers"
            yield checked.problem(path, message, at_key=True)
        if scale.min > scale.max:
            message = f"must not be more than max, {scale.max}"
            yield checked.problem((*path, "min"), message)
        yield from _target_can_be_reached(checked, path, service)


def _target_can_be_reached(
    checked: ValidationContext, path: Path, service: Service
) -> Iterator[Diagnostic]:
    """Workers are added when the load is a tenth above the target: a worker must be able to have
    as many requests.
    """
    scale, limits = service.autoscale, service.limits
    if scale is None or service.command or limits is None or not limits.concurrency:
        return
    most = limits.concurrency + limits.queue
    if scale.target_in_flight * 1.1 >= most:
        message = (
            f"is never exceeded: a worker has at most {most} requests"
            " (limits.concurrency and queue), and no workers are added"
        )
        hint = f"write less than {most / 1.1:.3g}, or raise limits.queue"
        yield checked.problem((*path, "target_in_flight"), message, hint, severity="warning")
