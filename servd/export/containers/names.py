"""Names of objects: DNS labels (RFC 1123)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from servd.config.tree import Path
from servd.config.validation_context import ValidationContext
from servd.core.diagnostics import Diagnostic

LONGEST = 63


def label(name: str) -> str:
    """Returns a name as a DNS label that begins with a letter, as those of Services must."""
    found = re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")
    found = f"servd-{found}" if found[:1].isdigit() else found
    return found[:LONGEST].strip("-") or "servd"


def is_label(name: str) -> bool:
    """Returns whether a name is a DNS label."""
    return bool(re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name))


def clashes(checked: ValidationContext, services: Iterable[str]) -> Iterator[Diagnostic]:
    """Yields a mistake for each service whose object would have the name of another's."""
    known: dict[str, str] = {}
    for name in services:
        other = known.setdefault(label(name), name)
        if other != name:
            path: Path = ("services", name)
            message = f'the name "{label(name)}" in Kubernetes is also that of service "{other}"'
            yield checked.problem(path, message, "rename one of them", at_key=True)


def variable(name: str) -> str:
    """Returns a name as the end of an environment variable's, as `servd.depends` spells it."""
    return re.sub(r"[^A-Z0-9_]", "_", name.upper())
