"""Renders the event of a request as a line for people: `GET /path 200 0.8 ms  127.0.0.1`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from servd.core.events import Event
from servd.core.printable import visible

_METHOD, _PATH = "http.request.method", "url.path"
_STATUS, _DURATION = "http.response.status_code", "duration_ms"
_SEPARATORS = re.compile(r"[%\s]")
_COLOURS = {2: "32", 3: "36", 4: "33", 5: "31"}
"""Of an answer's status by its first digit."""


def access_line(event: Mapping[str, Any], *, colours: bool) -> str | None:
    """Returns a request's line, with the id of one that failed; None for any other event."""
    status, milliseconds = event.get(_STATUS), event.get(_DURATION)
    if event.get("event") != Event.REQUEST or not {_METHOD, _PATH} <= event.keys():
        return None
    if not isinstance(status, int) or not isinstance(milliseconds, int | float):
        return None
    answered = str(status)
    details = _token(event.get("client.address") or "")
    if status >= 500:
        details += f" request_id={_token(event.get('request_id', ''))}"
    details = details.strip()
    if colours:
        answered = f"\033[{_COLOURS.get(status // 100, '0')}m{answered}\033[0m"
        details = details and f"\033[2m{details}\033[0m"
    asked = f"{_token(event[_METHOD])} {_token(event[_PATH])}"
    return f"{asked} {answered} {_duration(milliseconds)}  {details}".rstrip()


def _token(value: Any) -> str:
    """Returns a text without spaces and line ends, so that no client can forge a line."""
    return str(visible(_SEPARATORS.sub(lambda found: quote(found[0]), str(value))))


def _duration(milliseconds: float) -> str:
    if milliseconds >= 1000:
        return f"{milliseconds / 1000:.2f} s"
    return f"{milliseconds:.1f} ms" if milliseconds < 100 else f"{milliseconds:.0f} ms"
