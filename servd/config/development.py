"""The configuration for development: one worker per service, verbose logs. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Set
from typing import Any

from servd.config.load import Loaded
from servd.config.service import Service


def developed(loaded: Loaded) -> Loaded:
    """Returns `loaded` with one worker per service, the whole environment and verbose logs."""
    config = loaded.config
    log = config.daemon.log.model_copy(update={"format": "console", "level": "debug", "file": ""})
    daemon = config.daemon.model_copy(update={"log": log})
    parts = {
        name: dataclasses.replace(part, development=True)
        for name, part in loaded.parts.items()
        if not part.declared.runner  # BentoML embeds it in its API server
    }
    embedded = loaded.parts.keys() - parts.keys()
    services = {
        name: _developed(service, embedded)
        for name, service in config.services.items()
        if name not in embedded
    }
    config = config.model_copy(update={"daemon": daemon, "services": services})
    return dataclasses.replace(loaded, config=config, parts=parts)


def _developed(service: Service, embedded: Set[str]) -> Service:
    workers = min(1, service.workers) if service.workers != "auto" else 1
    update: dict[str, Any] = {
        "workers": workers,
        "env_passthrough": ("*",),
        "log": service.log.model_copy(update={"level": "debug"}),
        "depends_on": tuple(each for each in service.depends_on if each.service not in embedded),
    }
    return service.model_copy(update=update)
