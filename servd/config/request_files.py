"""The files with HTTP requests that a configuration names."""

from __future__ import annotations

from servd.config.model import Config
from servd.config.service import ServiceBase


def request_files_of(config: Config) -> set[str]:
    """Returns the paths of all request files."""
    tables = (config.defaults, *config.services.values())
    return {file for table in tables for file in request_files_of_service(table).values()}


def request_files_of_service(service: ServiceBase) -> dict[str, str]:
    """Returns the paths of request files by the table that names them."""
    found: dict[str, str] = {}
    if service.warmup is not None:
        found["warmup"] = service.warmup.request
    if service.health is not None and service.health.request:
        found["health"] = service.health.request
    return found
