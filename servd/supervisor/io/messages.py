"""What a worker can say: everything that comes from a service is validated here, where it enters.

A worker runs code that nobody has read: it may send anything, of any type and any size.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from servd.wire.names import EVENT_MARK
from servd.wire.request_line import REQUEST_MARK, events_of

_LONGEST_REASON = 8192
_LARGEST_COUNT = 2**31
_MOST_FILES = 20_000

Count = Annotated[int, Field(ge=0, le=_LARGEST_COUNT)]


class WorkerMessage(BaseModel):
    """A message on a worker's channel. An `answer` has the number of the request, and an `error`,
    as `recycle` may have; the other fields are reports.
    """

    model_config = ConfigDict(strict=True, frozen=True, defer_build=True)

    answer: int | None = None
    error: str = ""
    draining: dict[Annotated[str, Field(max_length=64)], Count] | None = Field(None, max_length=16)
    recycle: Literal["max_requests", "stuck", "cuda", "gpu_oom", "unwell"] | None = None
    sources: list[str] | None = Field(None, max_length=_MOST_FILES)
    failed: str | None = None
    missing_variable: str | None = None
    app_failed: bool = False
    loads_now: bool = False

    @property
    def reason(self) -> str:
        """Why the worker failed, in a length for people; "" if it did not say."""
        return (self.failed or self.error)[:_LONGEST_REASON]


def read_message(line: bytes) -> WorkerMessage | None:
    """Returns the message in a line; None when it is none."""
    try:
        return WorkerMessage.model_validate_json(line)
    except ValidationError:
        return None


_REQUESTS = re.compile(
    rb"(?:\x01[0-9T:.\-Z]{20,32}+\x02TEXT\x03TEXT\x04[1-9][0-9]{2}\x05TEXT"
    rb"\x06(?:0|[1-9][0-9]{0,9})\.[0-9]{3}\x07TEXT(?:\x08TEXT)?\n){1,256}+".replace(
        b"TEXT", rb'"[ !#-\[\]-~]*+"'
    )
)
"""Lines of the access log without anything that JSON escapes: most of what workers say, checked
without reading each. So many that what is made of them is not large."""


def split_events(content: bytes) -> tuple[list[bytes], bytes]:
    """Returns the lines in `content`, some consecutive ones of the access log together, with
    newlines between them; and the rest, a line without an end.
    """
    found: list[bytes] = []
    start, requests = 0, _REQUESTS.match
    while (end := content.find(b"\n", start)) >= 0:
        if run := requests(content, start):
            end = run.end() - 1
        found.append(content[start:end])
        start = end + 1
    return found, content[start:]


class FinishedEvent:
    """An event that servd's worker has rendered. The daemon adds whose it is: a program can write
    what it likes into its own events, but not in another's name.
    """

    def __init__(self, identity: Mapping[str, Any]) -> None:
        self._identity = dict(identity)
        self._tail = b", " + json.dumps(self._identity).encode()[1:]

    def requests(self, lines: bytes) -> bytes:
        """Returns lines of the access log that `split_events` found together, with the identity."""
        return events_of(lines, self._tail)

    def read(self, line: bytes) -> tuple[bytes, Mapping[str, Any]] | None:
        """Returns the event as JSON with its identity, and its own fields; None when it is none."""
        if line.startswith(REQUEST_MARK):
            line = events_of(line, b"}")
        elif line.startswith(EVENT_MARK):
            line = line[1:]
        else:
            return None
        try:
            fields = json.loads(line.decode())
        except (ValueError, RecursionError):
            return None
        if not isinstance(fields, dict) or not _is_event(fields):
            return None
        if self._identity.keys().isdisjoint(fields):
            return line.rstrip()[:-1] + self._tail, fields
        return json.dumps(fields | self._identity).encode(), fields


def _is_event(fields: Mapping[str, Any]) -> bool:
    """Whether the fields that every reader of an event relies on are what they should be."""
    texts = ("timestamp", "level", "event", "exception", "error")
    if not all(isinstance(fields.get(name, ""), str) for name in texts):
        return False
    return "event" in fields and "last_lines" not in fields
