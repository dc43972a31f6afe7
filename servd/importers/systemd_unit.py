"""Reads a service unit of systemd."""

from __future__ import annotations

import re
import shlex

from servd.importers.command_lines import put_command
from servd.importers.ini import Section, sections
from servd.importers.model import Imported, ImportedService, Left, literal, service_name

_POLICIES = {
    "no": "never", "always": "always", "on-failure": "on-failure", "on-abnormal": "on-failure",
    "on-abort": "on-failure", "on-watchdog": "on-failure", "on-success": "always",
}  # fmt: skip
_LIMITS = {
    "LimitNOFILE": "nofile", "LimitNPROC": "nproc", "LimitCORE": "core", "LimitMEMLOCK": "memlock",
    "LimitAS": "as", "LimitSTACK": "stack",
}  # fmt: skip
_DONE = {
    "ExecStart", "WorkingDirectory", "Environment", "EnvironmentFile", "User", "Group", "Restart",
    "RestartSec", "TimeoutStopSec", "TimeoutStartSec", "KillSignal", "UMask", "Type", "ExecStop",
    "MemoryMax", "SyslogIdentifier", "StandardOutput", "StandardError", *_LIMITS,
}  # fmt: skip


def read_unit(text: str, file: str) -> Imported:
    """Returns the service of the unit `file`."""
    found = Imported()
    stem = re.sub(r"@?\.service$", "", file.rpartition("/")[2])
    service = ImportedService(service_name(stem))
    for section in sections(text, comment=";#", lower=False):
        if section.name == "Service":
            _service(service, section)
        else:
            for key, entries in section.entries.items():
                if key not in ("Description", "Documentation", "WantedBy"):
                    service.left += [Left(f"{key}={entry.value}", entry.line) for entry in entries]
    found.services.append(service)
    return found


def _service(service: ImportedService, section: Section) -> None:
    starts = [re.sub(r"^[@:+!-]+", "", each) for each in section.all_of("ExecStart")]
    kind = section.last("Type", "simple")
    put_command(service, _plain(" && ".join(starts) if kind == "oneshot" else "".join(starts[-1:])))
    is_app = "app" in service.keys
    if kind == "oneshot":
        service.put("kind", "task")
    elif kind == "notify" and not is_app:
        service.put("ready", "notify")
    elif kind == "forking":
        service.left.append(Left("Type=forking: make the program stay in the foreground"))
    service.put("directory", section.last("WorkingDirectory").lstrip("-"))
    for line in section.all_of("Environment"):
        for word in _split(line):
            name, equals, value = word.partition("=")
            if equals:
                service.put(f"env.{name}", literal(value))
    files = [
        {"path": each[1:], "required": False} if each.startswith("-") else each
        for each in section.all_of("EnvironmentFile")
    ]
    service.put("env_file", files)
    service.put("user", section.last("User"))
    service.put("group", section.last("Group"))
    if kind != "oneshot":
        service.put("restart.policy", _POLICIES.get(section.last("Restart", "no")))
    service.put_backoff(_time(section.last("RestartSec")))
    service.put("timeouts.drain", _time(section.last("TimeoutStopSec")))
    service.put("timeouts.startup", _time(section.last("TimeoutStartSec")))
    service.put("stop_signal", section.last("KillSignal") if not is_app else None)
    if stop := section.last("ExecStop"):
        said = [Left(f"ExecStop={stop}")]
        service.put("stop_command", _split(_plain(stop)) if not is_app else None)
        service.left += said if is_app else []
    service.put("umask", section.last("UMask").zfill(3) if section.last("UMask") else None)
    service.put("limits.memory", section.last("MemoryMax"))
    for key, name in _LIMITS.items():
        limit = section.last(key).rpartition(":")[2]
        service.put(f"rlimits.{name}", int(limit) if limit.isdigit() else limit)
    _put_log(service, section)
    for key, entries in section.entries.items():
        if key not in _DONE:
            service.left += [Left(f"{key}={entry.value}", entry.line) for entry in entries]


def _put_log(service: ImportedService, section: Section) -> None:
    """Imports a file that gets the output; servd logs the output in any case."""
    for key in ("StandardOutput", "StandardError"):
        kind, _, path = section.last(key).partition(":")
        if kind in ("file", "append", "truncate") and service.get("log.file") in (None, path):
            service.put("log.file", path)
        elif kind not in ("", "inherit", "journal", "syslog", "journal+console", "kmsg"):
            service.left.append(Left(f"{key}={section.last(key)}"))


def _plain(text: str) -> str:
    """Replaces systemd's references and escapes."""
    return re.sub(r"\$\{(\w+)\}", r"$\1", text).replace("%%", "%")


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _time(text: str) -> str | None:
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return f"{text}s"
    return text if re.fullmatch(r"(\d+ *(ms|s|sec|m|min|h|hr|d) *)+", text) else None
