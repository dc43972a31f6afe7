"""Rules about services that run models."""

from __future__ import annotations

from collections.abc import Iterator

from servd.config.check_runners import binds_itself
from servd.config.tree import Path
from servd.config.validation_context import ValidationContext
from servd.core.diagnostics import Diagnostic


def warmups_reach_their_worker(checked: ValidationContext) -> Iterator[Diagnostic]:
    """A warm-up request goes to the worker that it is for."""
    for name, service in checked.config.services.items():
        path: Path = ("services", name, "warmup")
        if service.warmup is None or not service.command or not checked.is_own(path):
            continue
        if service.kind == "task":
            yield checked.problem(path, "does not apply to a task", at_key=True)
        elif not binds_itself(service):
            message = "the address of this command is not its own: any process may answer there"
            hint = "use {port} or {uds}, so that the command binds its address itself"
            yield checked.problem(path, message, hint, at_key=True)
