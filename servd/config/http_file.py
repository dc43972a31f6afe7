"""Parses a file with an HTTP request: a request line, headers, a blank line and a body.

    POST /v1/predict HTTP/1.1
    Content-Type: application/json

    {"text": "hello"}

Lines before the request line that are blank or begin with # are ignored. The version may be left
out. The body is the rest of the file, byte by byte.
"""

from __future__ import annotations

import json
import re

from servd.core.quick_dataclass import dataclass
from servd.core.regular_file import open_regular

MAX_BYTES = 16 * 1024 * 1024
"""Largest file: its content stays in the memory of the daemon."""

_MARK = b"\xef\xbb\xbf"
_METHOD = re.compile(r"[A-Z]{1,20}")
_TARGET = re.compile(r"/[\x21-\x7e]*")
_VERSION = re.compile(r"HTTP/[0-9](\.[0-9])?")
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_OURS = frozenset({"connection", "content-length", "expect", "transfer-encoding", "upgrade"})
"""Headers about the connection, which servd makes, and about the length, which it counts."""


class RequestFileError(ValueError):
    """A file is no HTTP request. `line` counts from 1. The message never shows a header's value,
    which may be a secret.
    """

    def __init__(self, line: int, message: str, hint: str = "") -> None:
        self.line, self.hint = line, hint
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class RequestFile:
    """An HTTP request with a target such as `/v1/predict?x=1`. `is_json`: its body is JSON."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    is_json: bool = False

    @property
    def shown(self) -> str:
        """The request as messages name it, without the query, which may be a secret."""
        return f"{self.method} {self.target.partition('?')[0]}"

    def encoded(self, host: str = "localhost") -> bytes:
        """Returns the request as HTTP/1.1, for a connection that the server closes after it. A
        header of the file goes before `host` and the other defaults.
        """
        named = {name.lower() for name, _ in self.headers}
        lines = [f"{self.method} {self.target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        for name, value in (("Host", host), ("User-Agent", "servd")):
            if name.lower() not in named:
                lines.append(f"{name}: {value}")
        if "content-type" not in named and self.is_json:
            lines.append("Content-Type: application/json")
        if self.body or self.method in ("POST", "PUT", "PATCH"):
            lines.append(f"Content-Length: {len(self.body)}")
        lines.append("Connection: close")
        return "\r\n".join((*lines, "", "")).encode("latin-1") + self.body


def is_json(body: bytes) -> bool:
    """Returns whether a body is JSON. Costs as much as parsing it."""
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


def read_request_file(path: str) -> RequestFile:
    """Returns the request in the file at `path`. Raises OSError and `RequestFileError`."""
    with open_regular(path) as file:
        return parse_request_file(file.read(MAX_BYTES + 1))


def parse_request_file(content: bytes) -> RequestFile:
    """Returns the request in a file. Raises `RequestFileError`."""
    if len(content) > MAX_BYTES:
        raise RequestFileError(1, f"is larger than {MAX_BYTES // 1024 // 1024} MiB")
    at = len(_MARK) if content.startswith(_MARK) else 0
    number, begun = 0, False
    method = target = ""
    headers: list[tuple[str, str]] = []
    while at < len(content):
        number += 1
        end = content.find(b"\n", at)
        end = end if end >= 0 else len(content)
        line = content[at:end].removesuffix(b"\r").decode("latin-1")
        at = end + 1
        if begun and not line.strip():
            body = content[at:]
            return RequestFile(method, target, tuple(headers), body, is_json(body))
        if begun:
            headers.append(_header(line, number))
        elif line.strip() and not line.startswith("#"):
            method, target = _request_line(line, number)
            begun = True
    if not begun:
        raise _expected_request_line(max(1, number))
    return RequestFile(method, target, tuple(headers))


def _request_line(line: str, number: int) -> tuple[str, str]:
    words = line.split()
    if not 2 <= len(words) <= 3 or not _METHOD.fullmatch(words[0]):
        raise _expected_request_line(number)
    if not _TARGET.fullmatch(words[1]):
        hint = "a worker is asked directly: write no scheme and host"
        raise RequestFileError(number, "expected a path that begins with / after the method", hint)
    if len(words) == 3 and not _VERSION.fullmatch(words[2]):
        raise RequestFileError(number, "expected HTTP/1.1, or nothing, after the path")
    return words[0], words[1]


def _expected_request_line(number: int) -> RequestFileError:
    return RequestFileError(number, "expected a request line such as POST /v1/predict")


def _header(line: str, number: int) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not _NAME.fullmatch(name):
        hint = "a blank line separates the headers from the body"
        raise RequestFileError(number, "expected a header such as Accept: text/plain", hint)
    if not _VALUE.fullmatch(value):
        raise RequestFileError(number, f"the value of {name} contains a control character")
    if name.lower() in _OURS:
        raise RequestFileError(number, f"servd sets {name} itself", "remove the line")
    return name, value.strip()
