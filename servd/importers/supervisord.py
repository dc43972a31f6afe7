"""Reads supervisord.conf."""

from __future__ import annotations

import re
import shlex

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

_POLICIES = {"true": "always", "false": "never", "unexpected": "on-failure"}
_DONE = {
    "command", "process_name", "numprocs", "numprocs_start", "directory", "umask", "autostart",
    "autorestart", "startsecs", "startretries", "stopsignal", "stopwaitsecs", "user", "environment",
    "stdout_logfile", "stdout_logfile_maxbytes", "stdout_logfile_backups", "redirect_stderr",
    "stopasgroup", "killasgroup", "stdout_syslog", "stderr_syslog",
}  # fmt: skip
"""Keys that are imported, or that servd does not need."""


def read_supervisord(text: str) -> Imported:
    """Returns the programs."""
    found = Imported()
    for section in sections(text, comment=";#", lower=True):
        kind, _, name = section.name.partition(":")
        if kind in ("program", "fcgi-program"):
            taken = [service.name for service in found.services]
            found.services.append(_program(section, name, service_name(name, taken)))
        elif kind == "supervisord":
            found.left += [
                Left(f"[supervisord] {key} = {entry.value}", entry.line)
                for key in ("environment", "umask", "directory", "user", "minfds", "minprocs")
                for entry in section.entries.get(key, ())
            ]
        elif kind not in ("supervisorctl", "unix_http_server", "inet_http_server", "rpcinterface"):
            found.left.append(Left(f"[{section.name}]", section.line))
    return found


def _program(section: Section, program: str, name: str) -> ImportedService:
    service = ImportedService(name)
    command = _expanded(section.last("command"), program)
    put_command(service, command)
    is_app = "app" in service.keys
    count = number(section.last("numprocs", "1")) or 1
    stopped = not is_true(section.last("autostart", "true"))
    service.put("workers", count if count != 1 else service.keys.get("workers"))
    if stopped:
        service.keys["workers"] = 0
    service.put("directory", _expanded(section.last("directory"), program))
    service.put("umask", section.last("umask").zfill(3) if section.last("umask") else None)
    service.put("user", section.last("user"))
    policy = _POLICIES.get(section.last("autorestart", "unexpected").lower())
    service.put("restart.policy", policy)
    service.put("restart.give_up_after", number(section.last("startretries")))
    alive = section.last("startsecs")
    if not is_app and alive not in ("", "0"):
        service.put("ready", seconds(alive))
    if not is_app and section.last("stopsignal"):
        service.put("stop_signal", f"SIG{section.last('stopsignal').upper().removeprefix('SIG')}")
    service.put("timeouts.drain", seconds(section.last("stopwaitsecs")))
    for pair in _pairs(_expanded(literal(section.last("environment")), program)):
        service.put(f"env.{pair[0]}", pair[1])
    log = _expanded(section.last("stdout_logfile"), program)
    if log.upper() not in ("", "AUTO", "NONE", "SYSLOG") and not log.startswith("/dev/"):
        service.put("log.file", log)
        service.put("log.max_size", _size(section.last("stdout_logfile_maxbytes")))
        service.put("log.keep", number(section.last("stdout_logfile_backups")))
    for key, entries in section.entries.items():
        if key.startswith("stderr_logfile") and _same_file(section, log):
            continue
        if key not in _DONE:
            service.left += [Left(f"{key} = {entry.value}", entry.line) for entry in entries]
    return service


def _same_file(section: Section, log: str) -> bool:
    """Whether servd logs the errors where supervisord does: with the output, or in its log."""
    file = section.last("stderr_logfile")
    return file in ("", log) or file.upper() in ("AUTO", "NONE") or file.startswith("/dev/")


def _expanded(text: str, program: str) -> str:
    """Replaces the expansions of supervisord; %(ENV_X)s becomes a reference."""
    text = text.replace("%(program_name)s", program).replace("%(group_name)s", program)
    text = re.sub(r"%\(ENV_(\w+)\)s", r"${\1}", text)
    text = re.sub(r"%\(process_num\)0?\d*d", "{worker}", text)
    return text.replace("%(here)s/", "").replace("%%", "%")


def _pairs(text: str) -> list[tuple[str, str]]:
    lexer = shlex.shlex(text, posix=True, punctuation_chars=",")
    lexer.whitespace_split = True
    try:
        words = [word for word in lexer if word.strip(",")]
    except ValueError:
        return []
    pairs = (word.partition("=") for word in words)
    return [(name, value) for name, equals, value in pairs if equals]


def _size(text: str) -> str | None:
    return f"{text}" if re.fullmatch(r"\d+(KB|MB|GB)", text) else None
