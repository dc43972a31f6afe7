"""Reads a PM2 ecosystem file: JSON, or JavaScript that node evaluates."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

from servd.importers.command_lines import put_command
from servd.importers.model import (
    Imported,
    ImportedService,
    ImportFailed,
    Keys,
    Left,
    literal,
    service_name,
)

_INTERPRETERS = {".js": "node", ".mjs": "node", ".cjs": "node", ".ts": "node", ".py": "python3",
                 ".sh": "sh", ".rb": "ruby", ".php": "php"}  # fmt: skip
_NODE_SECONDS = 20


def read_pm2(text: str, file: str) -> Imported:
    """Returns the apps. node executes JavaScript files. Raises `ImportFailed`."""
    tables = _evaluated(file) if file.endswith((".js", ".cjs")) else _parsed(text)
    apps = tables.get("apps") if isinstance(tables, dict) else tables
    if not isinstance(apps, list):
        raise ImportFailed('expected a list "apps"')
    found = Imported()
    for table in apps:
        taken = [service.name for service in found.services]
        name = str(table.get("name") or table.get("script") or "app")
        found.services.append(_app(ImportedService(service_name(name, taken)), table))
    return found


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ImportFailed(f"invalid JSON: {error}") from None


def _evaluated(file: str) -> Any:
    node = shutil.which("node")
    if node is None:
        raise ImportFailed("JavaScript files need node: install it, or use JSON")
    script = "console.log(JSON.stringify(require(require('path').resolve(process.argv[1]))))"
    try:
        done = subprocess.run(
            [node, "-e", script, file],
            capture_output=True, text=True, check=False, timeout=_NODE_SECONDS,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ImportFailed(f"node did not finish within {_NODE_SECONDS} s") from None
    if done.returncode:
        said = [line.strip() for line in done.stderr.splitlines() if "Error" in line]
        raise ImportFailed(f"node failed: {said[-1] if said else done.stderr.strip()}")
    return _parsed(done.stdout.splitlines()[-1] if done.stdout.strip() else "")


_NOT_NEEDED = ("merge_logs", "log_date_format", "time", "name")


def _app(service: ImportedService, app: dict[str, Any]) -> ImportedService:
    table = Keys(app)
    for key in _NOT_NEEDED:
        table.get(key)
    script = str(table.get("script", ""))
    given = str(table.get("interpreter") or "")
    suffix = script[script.rfind(".") :] if "." in script else ""
    interpreter = given if given not in ("", "none") else _INTERPRETERS.get(suffix, "")
    words = [interpreter] if interpreter and given != "none" else []
    words += _list(table.get("node_args") or table.get("interpreter_args"))
    put_command(
        service,
        [*words, *(_list(script) if " " in script else [script]), *_list(table.get("args"))],
    )
    instances = str(table.get("instances", 1))
    if instances in ("max", "0", "-1"):
        service.put("workers", "auto")
    elif instances != "1":
        service.put("workers", int(instances) if instances.isdigit() else None)
    if table.get("exec_mode") in ("cluster", "cluster_mode"):
        service.left.append(
            Left("exec_mode: cluster: make the program listen on {fd} (LISTEN_FDS)")
        )
    service.put("directory", table.get("cwd"))
    for name, value in {**(table.get("env") or {}), **(table.get("env_production") or {})}.items():
        service.put(f"env.{name}", literal(str(value)))
    service.put("limits.memory", table.get("max_memory_restart"))
    service.put("timeouts.drain", _milliseconds(table.get("kill_timeout")))
    service.put("restart.policy", "never" if table.get("autorestart") is False else None)
    service.put("restart.give_up_after", table.get("max_restarts"))
    service.put_backoff(_milliseconds(table.get("restart_delay")))
    service.put("log.file", table.get("out_file") or table.get("output") or table.get("log_file"))
    if "app" not in service.keys:
        service.put("ready", _milliseconds(table.get("min_uptime")))
    if table.peek("watch") is False:
        table.get("watch")
    if table.peek("error_file", "") in (service.get("log.file"), "", "/dev/null"):
        table.get("error_file")
    for key, value in table.unread():
        hint = " (`servd dev` reloads code)" if key == "watch" else ""
        service.left.append(Left(f"{key}: {json.dumps(value)}{hint}"))
    return service


def _list(value: Any) -> list[str]:
    if isinstance(value, str):
        import shlex

        return shlex.split(value)
    return [str(item) for item in value or ()]


def _milliseconds(value: Any) -> str | None:
    text = str(value)
    return f"{text}ms" if text.isdigit() else text if text[:1].isdigit() else None
