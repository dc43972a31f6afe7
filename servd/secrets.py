"""What counts as a secret, and how it is hidden. A leaf: imports nothing of servd."""

from __future__ import annotations

import re

MASK = "********"

_SECRET_NAME = re.compile(
    r"(pass(word|wd|phrase)?|secret|token|credential|api_?key|private_?key|auth)", re.IGNORECASE
)
_NOT_SECRET = {"token_file", "keyfile", "client_auth", "author"}


def is_secret_name(name: str) -> bool:
    """Whether a key or a variable of this name holds a secret, as far as one can tell."""
    return name.lower() not in _NOT_SECRET and _SECRET_NAME.search(name) is not None


def mask_line(line: str, path: str = "") -> str:
    """A line of a config file as it may be shown: values of secret-looking keys are masked.

    `path` is the dotted key that the line is shown for, so that a value which stands on a line of
    its own is masked too.
    """
    if path and is_secret_name(path.rsplit(".", 1)[-1]) and not re.search(r"[=:]", line):
        return re.sub(r"\S.*", MASK, line)

    def hide(match: re.Match[str]) -> str:
        return f"{match['key']}{match['sep']}{MASK}" if is_secret_name(match["key"]) else match[0]

    return re.sub(  # a value in quotes, or up to what ends one
        r"(?P<key>[A-Za-z0-9_\-]+)(?P<sep>[\"']?\s*[=:]\s*)"
        r"(?P<value>\"(?:[^\"\\]|\\.)*\"?|'[^']*'?|[^\s,}\]]+)",
        hide,
        mask_url(line),
    )


def mask_url(text: str) -> str:
    """`text` with the password of a URL's user part masked."""
    return re.sub(r"(://[^:/@\s]*:)[^@/\s]+@", rf"\1{MASK}@", text)
