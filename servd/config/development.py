"""The configuration for development: one worker per service, verbose logs. Pure."""

from __future__ import annotations

import dataclasses

from servd.config.load import Loaded
from servd.config.service import Service


def developed(loaded: Loaded) -> Loaded:
    """Returns `loaded` with one worker per service, the whole environment and verbose logs."""
    config = loaded.config
    log = config.daemon.log.model_copy(update={"format": "console", "level": "debug", "file": ""})
    daemon = config.daemon.model_copy(update={"log": log})
    services = {name: _developed(service) for name, service in config.services.items()}
    parts = {name: dataclasses.replace(p, development=True) for name, p in loaded.parts.items()}
    config = config.model_copy(update={"daemon": daemon, "services": services})
    return dataclasses.replace(loaded, config=config, parts=parts)


def _developed(service: Service) -> Service:
    workers = min(1, service.workers) if service.workers != "auto" else 1
    log = service.log.model_copy(update={"level": "debug"})
    return service.model_copy(update={"workers": workers, "env_passthrough": ("*",), "log": log})
