"""A line of the access log on its way from a worker to the daemon: its values alone, as JSON. A
control character, which JSON always escapes, stands for what is before each.
"""

from __future__ import annotations

REQUEST_MARK = b"\x01"
"""Starts such a line, which ends with a newline."""

_STANDS_FOR = (
    (REQUEST_MARK, b'{"timestamp": "'),  # without its quotes
    (b"\x02", b'", "level": "info", "event": "request", "http.request.method": '),
    (b"\x03", b', "url.path": '),
    (b"\x04", b', "http.response.status_code": '),
    (b"\x05", b', "client.address": '),
    (b"\x06", b', "duration_ms": '),
    (b"\x07", b', "request_id": '),
    (b"\x08", b', "trace_id": '),  # only where a request has one
)


def events_of(lines: bytes, end: bytes) -> bytes:
    """Returns lines, without the last newline, as JSON with `end` at the end of each."""
    for mark, text in _STANDS_FOR:
        lines = lines.replace(mark, text)
    return lines.replace(b"\n", end + b"\n") + end
