"""Reads a Procfile (Heroku, foreman, honcho)."""

from __future__ import annotations

import re

from servd.importers.command_lines import put_command
from servd.importers.model import Imported, ImportedService, Left, service_name

_LINE = re.compile(r"([A-Za-z0-9_.-]+)\s*:\s*(.+)")


def read_procfile(text: str) -> Imported:
    """Returns the services. `release` becomes a task that the others wait for."""
    found = Imported()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            found.left.append(Left(line.strip(), number))
            continue
        service = ImportedService(service_name(match[1], (s.name for s in found.services)))
        put_command(service, match[2])
        found.services.append(service)
    names = [service.name for service in found.services]
    for service in found.services:
        if service.name == "release":
            service.put("kind", "task")
        elif "release" in names:
            service.put("depends_on", [{"service": "release", "condition": "completed"}])
    return found
