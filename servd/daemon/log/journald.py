"""systemd's journal, natively (https://systemd.io/JOURNAL_NATIVE_PROTOCOL/): each field of an event
is one of the entry, so that `journalctl SERVD_SERVICE=web -p warning` finds it. JOURNAL_STREAM
tells a process that its stderr is connected to the journal (systemd.exec(5)).
"""

from __future__ import annotations

import array
import errno
import fcntl
import json
import os
import re
import socket
import struct
from collections.abc import Mapping
from typing import Any

from servd.daemon.log.event import LogEvent

ADDRESS = "/run/systemd/journal/socket"

PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
"""Levels in the numbers of syslog(3)."""

_F_ADD_SEALS = getattr(fcntl, "F_ADD_SEALS", 1033)
_ALL_SEALS = 0x0F
_NOT_IN_NAMES = re.compile(r"[^A-Z0-9_]+")
_NAME_BYTES = 64
_NOT_IN_MESSAGE = frozenset(
    {"timestamp", "level", "event", "service", "worker", "generation", "pid"}
)


def is_stderr(environ: Mapping[str, str]) -> bool:
    """Whether stderr of this process already goes to the journal."""
    try:
        found = os.fstat(2)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}" and os.path.exists(
        ADDRESS
    )


class JournaldClient:
    """A connection to the journal."""

    def __init__(self, address: str = ADDRESS) -> None:
        """Raises OSError when there is no journal."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.connect(address)

    def put(self, line: LogEvent) -> None:
        """Writes one entry. One that cannot be written is lost, as by the journal's rate limits."""
        try:
            entry = _entry(line)
        except Exception:  # a program may have written anything
            entry = _field("MESSAGE", line.json.decode(errors="replace"))
        try:
            self._socket.send(entry)
        except OSError as error:
            if error.errno in (errno.EMSGSIZE, errno.ENOBUFS):
                self._put_large(entry)

    def _put_large(self, entry: bytes) -> None:
        """Sends an entry as a sealed memory file."""
        try:
            descriptor = os.memfd_create("servd-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            try:
                with open(descriptor, "wb", closefd=False) as file:
                    file.write(entry)
                fcntl.fcntl(descriptor, _F_ADD_SEALS, _ALL_SEALS)
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))
                self._socket.sendmsg([], [rights])
            finally:
                os.close(descriptor)
        except OSError:
            pass

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()


def _entry(line: LogEvent) -> bytes:
    event = line.fields
    if event is None:
        event = {"event": line.json.decode(errors="replace")}
    fields = {
        "MESSAGE": message(event),
        "PRIORITY": str(PRIORITIES.get(str(event.get("level")), 6)),
        "SYSLOG_IDENTIFIER": "servd",
    }
    for key, value in event.items():
        if key not in ("timestamp", "level"):
            fields[field_name(key)] = value if isinstance(value, str) else json.dumps(value)
    return b"".join(_field(name, value) for name, value in fields.items())


def message(event: Mapping[str, Any]) -> str:
    """Returns an event as one line for people, with a traceback below it."""
    service = event.get("service")
    lead = f"{service}: " if service else ""
    rest = [
        f"{key}={value}" if isinstance(value, str | int | float) else f"{key}={json.dumps(value)}"
        for key, value in event.items()
        if key not in _NOT_IN_MESSAGE and key not in ("exception", "last_lines")
    ]
    below = [str(event["exception"])] if event.get("exception") else []
    below += [f"  | {text}" for text in event.get("last_lines") or ()]
    return "\n".join([lead + " ".join([str(event.get("event", "")), *rest]), *below])


def field_name(key: str) -> str:
    """Returns a journal field name: `a.status_code` becomes SERVD_A_STATUS_CODE."""
    return f"SERVD_{_NOT_IN_NAMES.sub('_', key.upper())}"[:_NAME_BYTES]


def _field(name: str, value: str) -> bytes:
    content = value.encode(errors="replace")
    if b"\n" not in content:
        return name.encode() + b"=" + content + b"\n"
    return name.encode() + b"\n" + struct.pack("<Q", len(content)) + content + b"\n"
