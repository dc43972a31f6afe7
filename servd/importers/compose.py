"""Reads docker-compose.yml and process-compose.yaml."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

from servd.importers.command_lines import put_command
from servd.importers.model import Imported, ImportedService, Left, number, service_name, variables

_CONDITIONS = {
    "service_started": "started", "service_healthy": "ready", "process_started": "started",
    "service_completed_successfully": "completed", "process_healthy": "ready",
    "process_completed": "completed", "process_completed_successfully": "completed",
    "process_log_ready": "ready",
}  # fmt: skip
_POLICIES = {
    "always": "always", "unless-stopped": "always", "on-failure": "on-failure", "no": "never",
    "false": "never", "on_failure": "on-failure", "exit_on_failure": "on-failure",
}  # fmt: skip
_OF_COMPOSE = {
    "command", "entrypoint", "environment", "env_file", "depends_on", "restart", "working_dir",
    "stop_signal", "stop_grace_period", "scale", "mem_limit", "healthcheck", "ports", "deploy",
}  # fmt: skip
_OF_PROCESSES = {
    "command", "working_dir", "environment", "depends_on", "availability", "readiness_probe",
    "liveness_probe", "shutdown", "replicas", "disabled", "log_location", "description",
}  # fmt: skip
LineOf = Callable[[str, str], int]


def read_compose(tables: Mapping[str, Any], line: LineOf) -> Imported:
    """Returns the services that have a command: the default command of an image is unknown."""
    found = Imported()
    services = tables.get("services") or {}
    for name, table in services.items():
        if not isinstance(table, dict) or not (table.get("command") or table.get("entrypoint")):
            image = table.get("image") if isinstance(table, dict) else ""
            found.left.append(
                Left(f"{name}: the default command of {image or 'its image'}", line(name, ""))
            )
            continue
        service = ImportedService(service_name(name))
        _of_compose(service, table)
        _rest(service, table, _OF_COMPOSE, functools.partial(line, name))
        found.services.append(service)
    _only_known(found)
    return found


def _of_compose(service: ImportedService, table: Mapping[str, Any]) -> None:
    whole = [part for key in ("entrypoint", "command") if (part := table.get(key))]
    texts = all(isinstance(part, str) for part in whole)
    words = [word for part in whole for word in (part.split() if isinstance(part, str) else part)]
    put_command(service, _reference(" ".join(whole)) if texts else [_reference(w) for w in words])
    for key, value in variables(table.get("environment")).items():
        service.put(f"env.{key}", _reference(value))
    service.put("env_file", _env_files(table.get("env_file")))
    service.put("depends_on", _dependencies(table.get("depends_on")))
    service.put(
        "restart.policy", _POLICIES.get(str(table.get("restart", "no")).lower().split(":")[0])
    )
    service.put("directory", None if str(table.get("working_dir", "")).startswith("/") else
                table.get("working_dir"))  # fmt: skip
    deploy = table.get("deploy") or {}
    count = number(table.get("scale") or deploy.get("replicas") or "")
    service.put("workers", count if count not in (None, 1) else service.keys.get("workers"))
    limits = (deploy.get("resources") or {}).get("limits") or {}
    service.put("limits.memory", table.get("mem_limit") or limits.get("memory"))
    service.put("timeouts.drain", table.get("stop_grace_period"))
    is_app = "app" in service.keys
    service.put("stop_signal", table.get("stop_signal") if not is_app else None)
    test = (table.get("healthcheck") or {}).get("test")
    if test and not is_app:
        words = ["sh", "-c", test] if isinstance(test, str) else list(test)
        if words[0] in ("CMD", "CMD-SHELL"):
            words = words[1:] if words[0] == "CMD" else ["sh", "-c", *words[1:]]
        service.put(
            "health", {"command": [str(word) for word in words]} if words[0] != "NONE" else None
        )
    ports = [str(port).split("/")[0].rpartition(":")[2] for port in table.get("ports") or ()
             if not isinstance(port, dict)]  # fmt: skip
    if ports and not is_app and any("{port}" in word for word in service.keys["command"]):
        service.put("listen", f":{ports[0]}")


def read_process_compose(tables: Mapping[str, Any], line: LineOf) -> Imported:
    """Returns the processes, whose commands run in a shell."""
    found = Imported()
    for name, table in (tables.get("processes") or {}).items():
        if not isinstance(table, dict):
            continue
        service = ImportedService(service_name(name))
        put_command(service, str(table.get("command", "true")))
        for key, value in variables(table.get("environment")).items():
            service.put(f"env.{key}", _reference(value))
        service.put("directory", table.get("working_dir"))
        service.put("depends_on", _dependencies(table.get("depends_on")))
        available = table.get("availability") or {}
        service.put("restart.policy", _POLICIES.get(str(available.get("restart", "no"))))
        service.put("restart.backoff", _seconds(available.get("backoff_seconds")))
        service.put("restart.give_up_after", available.get("max_restarts"))
        service.put("workers", table.get("replicas"))
        if table.get("disabled") is True:
            service.keys["workers"] = 0
        shutdown = table.get("shutdown") or {}
        service.put("timeouts.drain", _seconds(shutdown.get("timeout_seconds")))
        service.put("log.file", table.get("log_location"))
        probe = table.get("readiness_probe") or table.get("liveness_probe") or {}
        if "exec" in probe and "command" in service.keys:
            service.put("health", {"command": ["sh", "-c", str(probe["exec"].get("command"))]})
        elif "http_get" in probe and "app" in service.keys:
            service.put("health", {"path": probe["http_get"].get("path", "/")})
        elif "http_get" in probe:
            got = probe["http_get"]
            service.put("health", {"tcp": f"{got.get('host', '127.0.0.1')}:{got.get('port', 80)}"})
        _rest(service, table, _OF_PROCESSES, functools.partial(line, name))
        found.services.append(service)
    _only_known(found)
    return found


def _reference(text: str) -> str:
    """Keeps ${A:-x} and ${A}; writes $A as ${A}, and ${A-x} as ${A:-x}."""
    text = re.sub(r"\$\{(\w+)([-?])", r"${\1:\2", str(text))
    return re.sub(r"(?<!\$)\$(\w+)", r"${\1}", text)


def _env_files(value: Any) -> list[Any]:
    items = value if isinstance(value, list) else [value] if value else []
    return [
        {"path": item["path"], "required": item.get("required", True)}
        if isinstance(item, dict)
        else item
        for item in items
    ]


def _dependencies(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [
            {"service": service_name(name), "condition": _condition(table)}
            for name, table in value.items()
        ]
    return [service_name(str(name)) for name in value or ()]


def _condition(table: Any) -> str:
    said = table.get("condition", "") if isinstance(table, dict) else ""
    return _CONDITIONS.get(said, "started")


def _seconds(value: Any) -> str | None:
    return f"{value}s" if isinstance(value, int | float) and value else None


def _rest(
    service: ImportedService, table: Mapping[str, Any], done: set[str], line: Callable[[str], int]
) -> None:
    for key, value in table.items():
        if key not in done:
            said = value if isinstance(value, str | int | float | bool) else "..."
            service.left.append(Left(f"{key}: {said}", line(key)))


def _only_known(found: Imported) -> None:
    """Keeps the imported dependencies; a dependency that must complete becomes a task."""
    by_name = {service.name: service for service in found.services}
    for service in found.services:
        kept = []
        for item in service.keys.get("depends_on", ()):
            name = item["service"] if isinstance(item, dict) else item
            if name not in by_name:
                service.left.append(Left(f"depends_on: {name} (not imported itself)"))
                continue
            kept.append(item)
            if isinstance(item, dict) and item["condition"] == "completed":
                by_name[name].keys["kind"] = "task"
                by_name[name].keys.pop("restart", None)
        service.keys.pop("depends_on", None)
        service.put("depends_on", kept)
