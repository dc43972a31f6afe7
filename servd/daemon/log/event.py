"""One line on its way to the log, to followers and to hooks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any


class LogEvent:
    """A daemon's event (fields) or worker's line (bytes or fields); converted once, on demand."""

    def __init__(self, service: str, *, logged: bool = True) -> None:
        """`service` is its subject ("" for none); `logged`: it belongs in the log."""
        self.service = service
        self.logged = logged
        self.count = 1
        """Number of its lines."""

    @classmethod
    def by_daemon(cls, fields: Mapping[str, Any], *, logged: bool = True) -> LogEvent:
        """Makes an event of the daemon. Values that JSON has no form for become text."""
        event = cls(str(fields.get("service", "")), logged=logged)
        event.fields = {key: _plain(value) for key, value in fields.items()}
        return event

    @classmethod
    def by_worker(cls, service: str, line: bytes | Mapping[str, Any], count: int = 1) -> LogEvent:
        """Makes an event of a worker's line: finished (without newline), or the fields of text.
        `count` finished lines, with newlines between them, may go together: `each` parts them.
        """
        event = cls(service)
        event.count = count
        if isinstance(line, bytes):
            event.json = line
        else:
            event.fields = line
        return event

    def each(self) -> list[LogEvent]:
        """Returns an event for each of its lines."""
        if self.count == 1:
            return [self]
        return [self.by_worker(self.service, line) for line in self.json.split(b"\n")]

    @cached_property
    def json(self) -> bytes:
        return json.dumps(self.fields).encode()

    @cached_property
    def fields(self) -> Mapping[str, Any] | None:
        """The fields; None if a worker's line is not a JSON object."""
        try:
            found = json.loads(self.json)
        except ValueError:
            return None
        return found if isinstance(found, dict) else None


TakeEvent = Callable[[LogEvent], None]
"""Takes one event, in the thread it comes from."""


def _plain(value: Any) -> Any:
    """Returns the value that JSON would give back."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return str(value)
