"""Recognises secrets and masks them."""

from __future__ import annotations

import itertools
import re
from typing import Any

MASK = "********"

_SECRET_WORDS = frozenset({
    "auth", "credential", "credentials", "pass", "passphrase", "passwd", "password", "passwords",
    "secret", "secrets", "token", "apikey", "privatekey", "jwt", "pwd", "webhook", "webhooks",
    "requirepass", "masterauth",
})  # fmt: skip
_SECRET_ENDS = ("password", "passwd", "passphrase", "secret", "token", "apikey")
"""Ends of words: PGPASSWORD, AUTHTOKEN."""

_IN_QUERIES = frozenset({"key", "sig", "signature", "code"})
"""Further names of secrets in the query of a URL."""

_KEYS = frozenset({"access", "api", "encryption", "private", "secret", "signing"})
"""Words that make a following `key` a secret."""

_NOT_SECRET = frozenset({"token_file", "keyfile", "client_auth"})
_WORD = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z0-9]+")


def is_secret_name(name: str) -> bool:
    """Returns whether a name is that of a secret. Only whole words count: MAX_TOKENS is not."""
    if name.lower() in _NOT_SECRET:
        return False
    words = [word.lower() for word in _WORD.findall(name)]
    return any(word in _SECRET_WORDS or word.endswith(_SECRET_ENDS) for word in words) or any(
        word == "key" and before in _KEYS for before, word in itertools.pairwise(words)
    )


_PAIR_OF_WORDS = re.compile(
    r"""(?P<before>["'](?P<name>--?[A-Za-z][\w\-]*)["']\s*,\s*)(?:"(?:[^"\\]|\\.)*"?|'[^']*'?)"""
)
"""Two words of a list, the first of which is an option: `"--password", "X"`."""


def mask_line(line: str, path: str = "") -> str:
    """Returns a line of a config file, for the dotted `path`, with secrets masked."""
    key = path.rpartition(".")[2].partition("[")[0]
    if is_secret_name(key) and not re.search(r"^\s*\[|[=:]", line):
        return re.sub(r"\S.*", MASK, line)
    if path.startswith("hooks["):
        line = re.sub(r"""(\burl["']?\s*[=:]\s*)\S.*""", rf"\1{MASK}", line)

    def hide(match: re.Match[str]) -> str:
        shown = MASK if is_secret_name(match["key"]) else mask_text(match["value"])
        return f"{match['key']}{match['sep']}{shown}"

    line = _PAIR_OF_WORDS.sub(
        lambda match: f"{match['before']}{MASK}" if is_secret_name(match["name"]) else match[0],
        line,
    )
    return re.sub(  # a quoted value, or one up to a delimiter
        r"(?P<key>[A-Za-z0-9_\-]+)(?P<sep>[\"']?\s*[=:]\s*)"
        r"(?P<value>\"(?:[^\"\\]|\\.)*\"?|'[^']*'?|[^\s,}\]]+)",
        hide,
        mask_url(line),
    )


def mask_url(text: str) -> str:
    """Returns `text` with the password in a URL's user part masked, and secrets in its query."""

    def hide(match: re.Match[str]) -> str:
        name = match["name"]
        secret = name.lower() in _IN_QUERIES or is_secret_name(name)
        return f"{match['lead']}{name}={MASK}" if secret else match[0]

    text = re.sub(r"(://[^:/@\s]*:)[^@/\s]+@", rf"\1{MASK}@", text)
    return re.sub(r"(?P<lead>[?&])(?P<name>[\w\-]+)=[^&#\s\"']+", hide, text)


def mask_text(text: str) -> str:
    """Returns `text` with secrets in URLs and options (`--password=X`, `--password X`) masked."""

    def hide(match: re.Match[str]) -> str:
        return f"{match['name']}{match['sep']}{MASK}" if is_secret_name(match["name"]) else match[0]

    option = r"(?P<name>(?<!\S)--?[A-Za-z][\w\-]*)(?P<sep>=|\s+)(?P<value>[^\s\-\"'][^\s\"']*)"
    return re.sub(option, hide, mask_url(text))


def mask_values(
    value: Any, path: tuple[str | int, ...], secrets: frozenset[tuple[str | int, ...]]
) -> Any:
    """Returns a value of the configuration at `path`, with its secrets masked, without None.
    `secrets` are paths of further secrets; an inherited key is as secret as that of `[defaults]`.
    """
    if isinstance(value, dict):
        there = {key: entry for key, entry in value.items() if entry is not None}
        return {key: mask_values(entry, (*path, key), secrets) for key, entry in there.items()}
    if isinstance(value, list | tuple):
        shown = [mask_values(item, (*path, index), secrets) for index, item in enumerate(value)]
        return _with_arguments_masked(shown)
    if isinstance(value, str) and value:
        inherited = ("defaults", *path[2:]) if path[0] == "services" else path
        names = [step for step in path if isinstance(step, str)]
        of_hook = names == ["hooks", "url"]  # knowing it is enough to call it
        if path in secrets or inherited in secrets or of_hook or is_secret_name(names[-1]):
            return MASK
        return mask_text(value)
    return value


def _with_arguments_masked(words: list[Any]) -> list[Any]:
    """Masks the value after an option for a secret: `["--password", "X"]`."""
    return [
        MASK if isinstance(word, str) and _asks_for_secret(before) else word
        for before, word in zip([None, *words], words, strict=False)
    ]


def _asks_for_secret(option: Any) -> bool:
    if not isinstance(option, str) or not re.fullmatch(r"--?[A-Za-z][\w\-]*", option):
        return False
    return is_secret_name(option)
