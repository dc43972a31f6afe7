"""Splits English text into sentences, tokens and search terms."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Literal, NamedTuple

Kind = Literal["word", "number", "contraction", "punctuation"]

_TOKEN = re.compile(
    r"""
      (?P<number> \d+ (?:[.,]\d+)* (?!\w))  # 7  1,000  2.5
    | (?P<contraction> (?: n['\u2019]t | (?<=\w)['\u2019](?:s|m|d|re|ve|ll) ) \b )  # do|n't  we|'ll
    | (?P<word> (?: (?!n['\u2019]t\b) [^\W_] [\u0300-\u036f]* )+ )
    | (?P<punctuation> \.{2,} | [^\w\s] | _ )
    """,
    re.VERBOSE | re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"""[.!?…]+["'”\u2019)\]]*(?=\s+["'“\u2018(\[]*[A-Z0-9]|\s*$)""")
_NO_END = re.compile(r"\b(?:[A-HJ-Z]|Mrs?|Ms|Dr|Prof|St|Jr|Sr|No|Fig|[Vv]s|etc|e\.g|i\.e)\.$")
_VOWEL = re.compile(r"[aeiouy]")

_STOP_WORDS = """
    a about all also am an and any are as at be because been before being both but by ca can
    could did do does doing down each for from had has have he her here him his how i if in into is
    it its just me more most my no nor not of off on once only or other our out over own she should
    so some such than that the their them then there these they this those through to too under up
    us very was we were what when where which while who why will with wo would you your
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())


class Token(NamedTuple):
    """A piece of a text; `start` and `end` are offsets in characters."""

    text: str
    kind: Kind
    start: int
    end: int


def tokens(text: str) -> Iterator[Token]:
    for match in _TOKEN.finditer(text):
        kind: Kind = match.lastgroup  # type: ignore[assignment]
        yield Token(match.group(), kind, match.start(), match.end())


def sentences(text: str) -> list[str]:
    found: list[str] = []
    start = 0
    for match in _SENTENCE_END.finditer(text):
        last = match.end() == len(text.rstrip())
        if last or not _NO_END.search(text[start : match.end()]):
            found.append(text[start : match.end()].strip())
            start = match.end()
    return [*found, rest] if (rest := text[start:].strip()) else found


def terms(text: str) -> list[str]:
    """What is worth searching for: the stems of words and numbers, without stop words."""
    plain = (_plain(token.text) for token in tokens(text) if token.kind in ("word", "number"))
    return [stem(word) for word in plain if word not in STOP_WORDS]


def stem(word: str) -> str:
    """The word without its most common endings: "berries" is "berry", "running" is "run"."""
    if len(word) <= 3 or not word.isalpha():
        return word
    if word.endswith(("ies", "ied")):
        return word[:-3] + "y" if len(word) > 4 else word[:-1]
    if word.endswith(("sses", "shes", "ches", "xes", "zzes")):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return _without_silent_e(word[:-1])
    for ending in ("ing", "ed"):
        base = word.removesuffix(ending)
        if base != word and len(base) > 2 and _VOWEL.search(base):
            if base[-1] == base[-2] and base[-1] not in "lsz":
                return base[:-1]
            return base
    return _without_silent_e(word)


def _without_silent_e(word: str) -> str:
    """ "bake" and "baking" meet at "bak"; "tree" stays."""
    return word[:-1] if len(word) > 3 and word.endswith("e") and word[-2] != "e" else word


def _plain(word: str) -> str:
    """Lower case, without accents: "Café" is "cafe"."""
    parts = unicodedata.normalize("NFKD", word.casefold())
    return "".join(sign for sign in parts if not unicodedata.combining(sign))
