"""Reads circus.ini."""

from __future__ import annotations

import re

from servd.importers.command_lines import put_command
from servd.importers.ini import Section, sections
from servd.importers.model import (
    Imported,
    ImportedService,
    Left,
    is_true,
    literal,
    number,
    seconds,
    service_name,
)

_DONE = {
    "cmd", "args", "numprocesses", "working_dir", "shell", "copy_env", "copy_path", "stop_signal",
    "graceful_timeout", "max_retry", "singleton", "use_sockets", "uid", "gid", "autostart",
    "stdout_stream.class", "stdout_stream.filename", "stdout_stream.max_bytes", "max_age",
    "stdout_stream.backup_count", "stderr_stream.class", "stderr_stream.filename", "respawn",
    "virtualenv", "env",
}  # fmt: skip
_SOCKET = re.compile(r"\$\(circus\.sockets\.([\w-]+)\)")


def read_circus(text: str) -> Imported:
    """Returns the watchers with their sockets."""
    found = Imported()
    all_sections = list(sections(text, comment=";#", lower=True))
    sockets = {
        section.name.removeprefix("socket:"): section
        for section in all_sections
        if section.name.startswith("socket:")
    }
    for section in all_sections:
        kind, _, name = section.name.partition(":")
        if kind == "watcher":
            taken = [service.name for service in found.services]
            service = _watcher(section, service_name(name, taken), sockets)
            found.services.append(service)
            for other in all_sections:
                names = other.name.removeprefix("env:").split(",")
                if other.name.startswith("env:") and {name, "*"} & {n.strip() for n in names}:
                    for key, entries in other.entries.items():
                        service.put(f"env.{key.upper()}", literal(entries[-1].value))
        elif kind not in ("circus", "socket", "env"):
            found.left.append(Left(f"[{section.name}]", section.line))
    return found


def _watcher(section: Section, name: str, sockets: dict[str, Section]) -> ImportedService:
    service = ImportedService(name)
    text = f"{section.last('cmd')} {section.last('args')}".strip()
    used = _SOCKET.findall(text)
    text = _SOCKET.sub("{fd}", text).replace("$(circus.wid)", "{worker}")
    put_command(service, ["sh", "-c", text] if is_true(section.last("shell")) else text)
    if used:
        service.put("listen", _listen(sockets.get(used[0])))
        service.left += [Left(f"socket {each}: a command can use one socket") for each in used[1:]]
    count = number(section.last("numprocesses", "1"))
    service.put("workers", count if count != 1 else None)
    if section.entries.get("autostart") and not is_true(section.last("autostart")):
        service.keys["workers"] = 0
    service.put("directory", section.last("working_dir"))
    service.put("user", section.last("uid"))
    service.put("group", section.last("gid"))
    service.put("env_passthrough", ["*"] if is_true(section.last("copy_env")) else None)
    signal = section.last("stop_signal").upper().removeprefix("SIG")
    service.put("stop_signal", f"SIG{signal}" if signal and "app" not in service.keys else None)
    service.put("timeouts.drain", seconds(section.last("graceful_timeout")))
    service.put("limits.max_age", seconds(section.last("max_age")))
    service.put("restart.give_up_after", number(section.last("max_retry")))
    if is_true(section.last("singleton")):
        service.put("rollout.strategy", "recreate")
    if section.entries.get("respawn") and not is_true(section.last("respawn")):
        service.put("restart.policy", "never")
    if virtual := section.last("virtualenv"):
        service.put("python", f"{virtual}/bin/python" if "app" in service.keys else None)
    service.put("log.file", section.last("stdout_stream.filename"))
    service.put("log.max_size", number(section.last("stdout_stream.max_bytes")))
    service.put("log.keep", number(section.last("stdout_stream.backup_count")))
    for key, entries in section.entries.items():
        if key not in _DONE:
            service.left += [Left(f"{key} = {entry.value}", entry.line) for entry in entries]
    return service


def _listen(socket: Section | None) -> str | None:
    if socket is None:
        return None
    if path := socket.last("path"):
        return f"unix:{path}"
    host = socket.last("host", "localhost")
    port = socket.last("port", "8080")
    return f":{port}" if host in ("0.0.0.0", "") else f"{host}:{port}"  # noqa: S104
