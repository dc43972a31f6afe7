"""What the head of a request has to be (RFC 9112), over both parsers: where two servers read one
differently, a client gets past the one in front. httptools and h11 let pass what is refused here.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import NamedTuple

_HOST = re.compile(rb"(?:[A-Za-z0-9\-._~!$&'()*+,;=%]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")
_LONE_LF = re.compile(rb"(?<!\r)\n")
_FOLDED = re.compile(rb"\r\n[ \t]")
_LENGTH = re.compile(rb"\ncontent-length[ \t]*:([^\r]*)", re.IGNORECASE)
_END = b"\r\n\r\n"


class Refusal(NamedTuple):
    """The answer to a request that never reaches the app."""

    status: int
    reason: str


BAD_REQUEST = Refusal(400, "Invalid HTTP request received.")
TOO_LONG = Refusal(431, "Request Header Fields Too Large")
_VERSION = Refusal(505, "HTTP Version Not Supported")
_HOSTS = Refusal(400, "A request must have exactly one valid Host header.")
_ENCODING = Refusal(501, "The only supported transfer-encoding is chunked.")
_ENCODING_1_0 = Refusal(400, "HTTP/1.0 does not support transfer-encoding.")
_LENGTHS = Refusal(400, "A request must have only one content-length.")


BODILESS = frozenset({204, 304})
"""Statuses of responses without a body, whatever their fields say (RFC 9112, 6.3)."""

FRAMING_BYTES = 32
"""What each part of a chunked body may have in addition to its content, on average, beyond the
limit of the head: sizes and extensions of chunks, and trailers."""


class RefusedHeadError(Exception):
    """A request is refused while its head is parsed."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


@functools.lru_cache(maxsize=64)
def _is_host(value: bytes) -> bool:
    return _HOST.fullmatch(value) is not None


def refusal_of(headers: Iterable[tuple[bytes, bytes]], version: str) -> Refusal | None:
    """Returns why a request with these (lower case) headers is refused; None if it is not. It runs
    for every request.
    """
    hosts = lengths = 0
    encoding: bytes | None = None
    for name, value in headers:
        if name == b"host":
            hosts += 1
            if not _is_host(value):
                return _HOSTS
        elif name == b"content-length":
            lengths += 1
        elif name == b"transfer-encoding":
            encoding = value if encoding is None else encoding + b"," + value
    if version != "1.1" and version != "1.0":
        return _VERSION
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        return _HOSTS
    if lengths > 1:
        return _LENGTHS
    if encoding is not None and version == "1.0":
        return _ENCODING_1_0
    if encoding is not None and encoding.lower() != b"chunked":
        return _ENCODING
    return None


def refusal_of_text(text: bytes, most: int) -> Refusal | None:
    """Returns why a head is refused as it was sent, of which `text` is the beginning: lines that
    end with LF alone, folded ones (5.2), two lengths, which h11 makes one, and more than `most`
    bytes.
    """
    end = text.find(_END)
    head = text if end < 0 else text[: end + 2]
    if len(head) > most:
        return TOO_LONG
    if _LONE_LF.search(head) or _FOLDED.search(head):
        return BAD_REQUEST
    lengths = _LENGTH.findall(head)
    return _LENGTHS if len(lengths) > 1 or any(b"," in value for value in lengths) else None
