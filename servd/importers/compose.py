"""Reads docker-compose.yml and process-compose.yaml."""

from __future__ import annotations

import functools
import json
import re
import signal
from collections.abc import Callable, Mapping
from typing import Any

from servd.importers.command_lines import put_command
from servd.importers.model import (
    Imported,
    ImportedService,
    Keys,
    Left,
    number,
    service_name,
    variables,
)

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
        keys = Keys(table)
        _of_compose(service, keys)
        _rest(service, keys, functools.partial(line, name))
        found.services.append(service)
    _only_known(found)
    return found


def _of_compose(service: ImportedService, table: Keys) -> None:
    whole = [part for key in ("entrypoint", "command") if (part := table.get(key))]
    texts = all(isinstance(part, str) for part in whole)
    words = [word for part in whole for word in (part.split() if isinstance(part, str) else part)]
    put_command(service, _reference(" ".join(whole)) if texts else [_reference(w) for w in words])
    for key, value in variables(table.get("environment")).items():
        service.put(f"env.{key}", _reference(value))
    service.put("env_file", _env_files(table.get("env_file")))
    service.put("depends_on", _dependencies(table.get("depends_on")))
    policy, _, attempts = str(table.get("restart", "no")).lower().partition(":")
    service.put("restart.policy", _POLICIES.get(policy))
    service.put("restart.give_up_after", number(attempts))
    if not str(table.peek("working_dir", "")).startswith("/"):  # a folder of the image
        service.put("directory", table.get("working_dir"))
    deploy = table.table("deploy")
    count = number(table.get("scale") or deploy.get("replicas") or "")
    service.put("workers", count if count not in (None, 1) else service.keys.get("workers"))
    limit = deploy.table("resources").table("limits").get("memory")
    service.put("limits.memory", table.get("mem_limit") or limit)
    service.put("timeouts.drain", table.get("stop_grace_period"))
    is_app = "app" in service.keys
    if not is_app:
        service.put("stop_signal", table.get("stop_signal"))
    _health_of_compose(service, table.table("healthcheck"), is_app)
    _ports(service, table, is_app)


def _health_of_compose(service: ImportedService, table: Keys, is_app: bool) -> None:
    """Imports a check: of an app, only one over HTTP, which names the path."""
    test = table.peek("test")
    words = ["CMD-SHELL", test] if isinstance(test, str) else [str(word) for word in test or ()]
    if not words or words[0] == "NONE" or table.peek("disable") is True:
        table.ignore()
        return
    words = words[1:] if words[0] == "CMD" else ["sh", "-c", *words[1:]]
    path = re.search(r"https?://[^/\s'\"]+(/[^\s'\"]*)", " ".join(words))
    if is_app and not path:
        return
    health: dict[str, Any] = {"path": path[1]} if is_app and path else {"command": words}
    table.get("test")
    for key, name in (("interval", "interval"), ("timeout", "timeout"), ("retries", "failures")):
        if (value := table.get(key)) is not None:
            health[name] = value
    service.put("health", health)


def _ports(service: ImportedService, table: Keys, is_app: bool) -> None:
    """Imports published ports; a port that the container has under another number is not one."""
    pairs = [_published(port) for port in table.peek("ports") or ()]
    if all(published == target for published, target in pairs):
        table.get("ports")
    if pairs and not is_app and any("{port}" in word for word in service.keys["command"]):
        service.put("listen", f":{pairs[0][1]}")


def _published(port: Any) -> tuple[str, str]:
    if isinstance(port, dict):
        return str(port.get("published", port.get("target"))), str(port.get("target"))
    *outside, target = str(port).partition("/")[0].split(":")
    return (outside[-1] if outside else target), target


def read_process_compose(tables: Mapping[str, Any], line: LineOf) -> Imported:
    """Returns the processes, whose commands run in a shell."""
    found = Imported()
    for name, table in (tables.get("processes") or {}).items():
        if not isinstance(table, dict):
            continue
        service = ImportedService(service_name(name))
        keys = Keys(table)
        _process(service, keys)
        _rest(service, keys, functools.partial(line, name))
        found.services.append(service)
    _only_known(found)
    return found


def _process(service: ImportedService, table: Keys) -> None:
    command = str(table.get("command", "true")).strip()
    put_command(service, ["sh", "-c", command.replace("$", "$$")] if "\n" in command else command)
    for key, value in variables(table.get("environment")).items():
        service.put(f"env.{key}", _reference(value))
    service.put("directory", table.get("working_dir"))
    service.put("depends_on", _dependencies(table.get("depends_on")))
    available = table.table("availability")
    service.put("restart.policy", _POLICIES.get(str(available.get("restart", "no"))))
    service.put_backoff(_seconds(available.get("backoff_seconds")))
    service.put("restart.give_up_after", available.get("max_restarts"))
    service.put("workers", table.get("replicas"))
    if table.get("disabled") is True:
        service.keys["workers"] = 0
    shutdown = table.table("shutdown")
    service.put("timeouts.drain", _seconds(shutdown.get("timeout_seconds")))
    if "command" in service.keys:
        given = number(shutdown.peek("signal", ""))
        if given in signal.valid_signals():
            service.put("stop_signal", signal.Signals(int(shutdown.get("signal"))).name)
        if command := shutdown.get("command"):
            service.put("stop_command", ["sh", "-c", str(command).replace("$", "$$")])
    service.put("log.file", table.get("log_location"))
    table.get("description")
    name = "readiness_probe" if table.peek("readiness_probe") else "liveness_probe"
    _probe(service, table.table(name))


def _probe(service: ImportedService, table: Keys) -> None:
    health: dict[str, Any] = {}
    if table.peek("exec") and "command" in service.keys:
        command = str(table.table("exec").get("command")).replace("$", "$$")
        health["command"] = ["sh", "-c", command]
    elif table.peek("http_get"):
        got = table.table("http_get")
        host, port = got.get("host", "127.0.0.1"), got.get("port", 80)
        if "app" in service.keys:
            health["path"] = got.get("path", "/")
        else:
            health["tcp"] = f"{host}:{port}"
    if not health:
        return
    for key, name in (("period_seconds", "interval"), ("timeout_seconds", "timeout")):
        if (text := _seconds(table.get(key))) is not None:
            health[name] = text
    if (failures := table.get("failure_threshold")) is not None:
        health["failures"] = failures
    service.put("health", health)


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


def _rest(service: ImportedService, table: Keys, line: Callable[[str], int]) -> None:
    for key, value in table.unread():
        said = value if isinstance(value, str | int | float | bool) else json.dumps(value)
        service.left.append(Left(f"{key}: {said}", line(key.partition(".")[0])))


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
