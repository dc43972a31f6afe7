"""One line on its way to the log, to followers and to hooks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any


class LogEvent:
    """An event of the daemon (a mapping), or a line of a worker (bytes where it is finished). The
    other form is made when it is asked for, once.
    """

    def __init__(self, service: str, *, logged: bool = True) -> None:
        """`service` is what it is about ("": none); `logged` says whether it is for the log."""
        self.service = service
        self.logged = logged

    @classmethod
    def by_daemon(cls, fields: Mapping[str, Any], *, logged: bool = True) -> LogEvent:
        """What the daemon says. Values that JSON has no form for become text."""
        event = cls(str(fields.get("service", "")), logged=logged)
        event.fields = {key: _plain(value) for key, value in fields.items()}
        return event

    @classmethod
    def by_worker(cls, service: str, line: bytes | Mapping[str, Any]) -> LogEvent:
        """A line of a service's worker: finished (without its end), or text with its fields."""
        event = cls(service)
        if isinstance(line, bytes):
            event.json = line
        else:
            event.fields = line
        return event

    @cached_property
    def json(self) -> bytes:
        """The line."""
        return json.dumps(self.fields).encode()

    @cached_property
    def fields(self) -> Mapping[str, Any] | None:
        """The fields; None where a worker's line is no JSON object."""
        try:
            found = json.loads(self.json)
        except ValueError:
            return None
        return found if isinstance(found, dict) else None


TakeEvent = Callable[[LogEvent], None]
"""Takes one event, in the thread that it comes from."""


def _plain(value: Any) -> Any:
    """What JSON makes of a value."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return str(value)
