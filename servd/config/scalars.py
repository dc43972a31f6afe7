"""Scalar values: parsers, printers and JSON Schemas. A duration is a float of seconds, a size an
int of bytes; "none" is None. Parsers raise `PydanticCustomError`, whose message shows valid values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PlainSerializer, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
SIZE_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
SIZE_UNITS |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
SHOWN_LENGTH = 57
"""Characters of a long text that a message shows."""

_UNIT_WORDS = {
    "ms": "msec|msecs|millisecond|milliseconds", "s": "sec|secs|second|seconds",
    "m": "min|mins|minute|minutes", "h": "hr|hrs|hour|hours", "d": "day|days",
}  # fmt: skip
"""Other words for a unit, as systemd and people use them."""

_UNITS = {word: size for unit, size in DURATION_UNITS.items()
          for word in (unit, *_UNIT_WORDS[unit].split("|"))}  # fmt: skip
_UNIT = "|".join(sorted(_UNITS, key=len, reverse=True))
_PARTS = re.compile(rf"(\d+(?:\.\d+)?) *({_UNIT})(?![a-z]) *")
_SIZE = re.compile(r"(\d+(?:\.\d+)?) *([A-Za-z]+)")
_DURATION_PATTERN = (
    r"^(\d+(\.\d+)?|(\d+(\.\d+)? *(ms(ecs?)?|milliseconds?|s(ecs?|econds?)?|m(ins?|inutes?)?"
    r"|h(rs?|ours?)?|d(ays?)?) *)+)$"
)
_SIZE_LETTERS = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
"""K, Ki and so on are powers of 1024, as systemd, Docker, nginx and Kubernetes read them."""

_SIZE_FACTORS = {
    **{unit.lower(): factor for unit, factor in SIZE_UNITS.items()},
    **_SIZE_LETTERS,
    **{f"{letter}i": factor for letter, factor in _SIZE_LETTERS.items()},
}
_SIZE_PATTERN = r"^\d+(\.\d+)?( *([Bb]|[KkMmGgTt]([Ii]?[Bb]?)))?$"
NOTHING_WORDS = ("none", "off", "never", "infinity")
"""Words for no limit, as in servd, YAML and systemd."""


def wrong(message: str) -> PydanticCustomError:
    """Returns a validation error with exactly this message (braces are literal)."""
    return PydanticCustomError("servd", "{message}", {"message": message})


def number_of(value: object) -> float | None:
    """Returns a number, or text of digits, as a finite float; otherwise None."""
    is_digits = isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?", value)
    if isinstance(value, bool) or not (isinstance(value, int | float) or is_digits):
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def parse_duration(value: object) -> float:
    """Returns the seconds of `"300ms"`, `"1h30m"`, `"2 min"` or a number. Raises
    `PydanticCustomError`.
    """
    number = number_of(value)
    if number is None and isinstance(value, str):
        parts = list(_PARTS.finditer(value))
        if parts and "".join(part[0] for part in parts) == value:
            number = sum(float(part[1]) * _UNITS[part[2]] for part in parts)
    if number is None or not 0 <= number < 1e10:
        raise wrong(
            f'{shown(value)} is not a duration: write "300ms", "5s", "2m", "1h", "1d"'
            " or a number of seconds"
        )
    return number


def print_duration(seconds: float) -> str:
    """Returns the shortest spelling that `parse_duration` reads as the same number."""
    for unit in ("d", "h", "m", "s"):
        amount = seconds / DURATION_UNITS[unit]
        if (amount >= 1 and amount == int(amount)) or (unit == "s" and seconds == 0):
            return f"{int(amount)}{unit}"
    milliseconds = round(seconds * 1000)
    if milliseconds / 1000 == seconds:
        return f"{milliseconds}ms"
    return f"{seconds:f}".rstrip("0") + "s"


def parse_size(value: object) -> int:
    """Returns the bytes of `"512KiB"`, `"1.5GiB"`, `"200MB"`, `"512m"` or a number of bytes."""
    number = number_of(value)
    if number is None and isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        factor = _SIZE_FACTORS.get(match[2].lower())
        number = float(match[1]) * factor if factor is not None else None
    if number is None or not 0 <= number < 2**63:
        raise wrong(
            f'{shown(value)} is not a size: write "512KiB", "1.5GiB", "200MB" or a number of bytes'
        )
    return int(number)


def print_size(size: int) -> str:
    """Returns the shortest spelling that `parse_size` reads as the same number."""
    for unit in ("TiB", "GiB", "MiB", "KiB", "TB", "GB", "MB", "KB"):
        if size and size % SIZE_UNITS[unit] == 0:
            return f"{size // SIZE_UNITS[unit]}{unit}"
    return f"{size}B"


def shown(value: object) -> str:
    """Returns a value as messages quote it: shortened, in the spelling of the config."""
    if isinstance(value, str):
        text = value if len(value) <= SHOWN_LENGTH + 3 else value[:SHOWN_LENGTH] + "..."
        return f'"{text}"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list"
    return str(value)


def or_word(word: str, parse: Callable[[object], Any], empty: Any) -> Callable[[object], Any]:
    """Returns a parser that reads `word` as `empty` and other values by `parse`."""
    return lambda value: empty if value in (word, empty) else parse(value)


def or_none(parse: Callable[[object], Any]) -> Callable[[object], Any]:
    """Returns a parser that reads "none", its synonyms and false as None."""
    return lambda value: (
        None if value is None or value is False or value in NOTHING_WORDS else parse(value)
    )


def any_of(*choices: dict[str, Any], **others: Any) -> WithJsonSchema:
    """Returns the schema of a value that is one of `choices`."""
    return WithJsonSchema({**({"anyOf": list(choices)} if choices[1:] else choices[0]), **others})


def spelled_as(
    parse: Callable[[object], Any],
    write: Callable[[Any], Any],
    *choices: dict[str, Any],
    examples: Sequence[str] = (),
) -> tuple[PlainValidator, PlainSerializer, WithJsonSchema]:
    """Returns the annotations of a value that is one of `choices` in a file, such as `examples`."""
    shown = {"examples": list(examples)} if examples else {}
    return PlainValidator(parse), PlainSerializer(write), any_of(*choices, **shown)


def _or(word: str, write: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Returns a printer that prints None and words as `word`."""
    return lambda value: word if value in (None, word) else write(value)


def unchanged(value: Any) -> Any:
    """Prints a value as it is."""
    return value


_COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
_DURATION: tuple[dict[str, Any], ...] = (
    {"type": "string", "pattern": _DURATION_PATTERN},
    {"type": "number", "minimum": 0},
)
_SIZES = ({"type": "string", "pattern": _SIZE_PATTERN}, _COUNT)
_TIMES, _AMOUNTS = ("300ms", "5s", "2m", "1h", "1d"), ("512KiB", "64MiB", "1.5GiB", "200MB")
_GPU_IDS = {"type": "array", "items": {"anyOf": [{"type": "integer"}, {"type": "string"}]}}
_AUTO, _NONE = {"enum": ["auto"]}, {"enum": ["none"]}
_NO_LIMIT = (
    _NONE,
    {"enum": [False]},
    {"type": "string", "pattern": f"^({'|'.join(NOTHING_WORDS[1:])})$"},
)

Duration = Annotated[
    float, *spelled_as(parse_duration, print_duration, *_DURATION, examples=_TIMES)
]
DurationOrNone = Annotated[
    float | None,
    *spelled_as(
        or_none(parse_duration),
        _or("none", print_duration),
        *_DURATION,
        *_NO_LIMIT,
        examples=(*_TIMES, "none"),
    ),
]
DurationOrAuto = Annotated[
    float | Literal["auto"],
    *spelled_as(
        or_word("auto", parse_duration, "auto"),
        _or("auto", print_duration),
        *_DURATION,
        _AUTO,
        examples=(*_TIMES, "auto"),
    ),
]
Size = Annotated[int, *spelled_as(parse_size, print_size, *_SIZES, examples=_AMOUNTS)]
SizeOrNone = Annotated[
    int | None,
    *spelled_as(
        or_none(parse_size),
        _or("none", print_size),
        *_SIZES,
        *_NO_LIMIT,
        examples=(*_AMOUNTS, "none"),
    ),
]


READY_WORDS = ("auto", "notify", "port", "http", "started")


def _parse_ready(value: object) -> float | str:
    if value in READY_WORDS:
        return str(value)
    if isinstance(value, str) and not value[:1].isdigit():
        words = joined(f'"{word}"' for word in READY_WORDS)
        raise wrong(
            f'{shown(value)} is not a readiness mode: write {words}, or a duration such as "5s"'
        )
    return parse_duration(value)


Readiness = Annotated[
    float | Literal["auto", "notify", "port", "http", "started"],
    *spelled_as(
        _parse_ready,
        lambda value: value if isinstance(value, str) else print_duration(value),
        {"enum": list(READY_WORDS)},
        *_DURATION,
    ),
]


def _parse_count_or_auto(value: object) -> int | str:
    number = number_of(value)
    if value == "auto":
        return "auto"
    if number is None or number != int(number) or not 0 <= number <= 10_000:
        raise wrong(f'{shown(value)} is not a number of workers: write 0 to 10000, or "auto"')
    return int(number)


CountOrAuto = Annotated[
    int | Literal["auto"],
    *spelled_as(
        _parse_count_or_auto,
        unchanged,
        {**_COUNT, "maximum": 10000},
        _AUTO,
        {"type": "string", "pattern": r"^\d{1,5}$"},
    ),
]


def _parse_octal(value: object) -> str:
    match = re.fullmatch(r"(0o)?([0-7]{1,4})", value) if isinstance(value, str) else None
    if match is None or (not match[1] and len(match[2]) < 3):
        raise wrong(f'{shown(value)} is not a file mode: write a string such as "027"')
    return match[2].zfill(3)


_OCTAL = {"type": "string", "pattern": "^(0o[0-7]{1,4}|[0-7]{3,4})$"}
_OCTAL_NUMBER = {"type": "integer", "minimum": 0, "maximum": 7777}
"""022 in YAML is text to servd, and a number to editors."""
OctalMode = Annotated[str, *spelled_as(_parse_octal, unchanged, _OCTAL, _OCTAL_NUMBER)]
OctalModeOrNone = Annotated[
    str | None, *spelled_as(or_none(_parse_octal), unchanged, _OCTAL, _OCTAL_NUMBER, *_NO_LIMIT)
]


def _parse_percent_or_count(value: object) -> str | int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    if isinstance(value, str) and re.fullmatch(r"[1-9]\d*%", value):
        return value
    raise wrong(
        f'{shown(value)} is not a surge: write a percentage such as "100%" or a number from 1'
    )


_PERCENT = {"type": "string", "pattern": "^[1-9]\\d*%$"}
PercentOrCount = Annotated[
    str | int, *spelled_as(_parse_percent_or_count, unchanged, _PERCENT, {**_COUNT, "minimum": 1})
]


_CPU_RANGES = r"^\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*$"


def _parse_affinity(value: object) -> tuple[int, ...] | str:
    if value in ("spread", "gpu"):
        return str(value)
    if type(value) is int:
        value = (value,)
    if isinstance(value, str) and re.fullmatch(_CPU_RANGES, value):
        ends = (part.split("-") for part in value.split(","))
        value = [cpu for end in ends for cpu in range(int(end[0]), int(end[-1]) + 1)]
    if isinstance(value, list | tuple) and all(type(item) is int and item >= 0 for item in value):
        return tuple(value)
    raise wrong(f'{shown(value)} is not a CPU affinity: write a list of CPU ids, "spread" or "gpu"')


Affinity = Annotated[
    tuple[int, ...] | Literal["spread", "gpu"],
    *spelled_as(
        _parse_affinity,
        unchanged,
        {"type": "array", "items": _COUNT},
        _COUNT,
        {"enum": ["spread", "gpu"]},
        {"type": "string", "pattern": _CPU_RANGES},
    ),
]


def _parse_gpus(value: object) -> float | tuple[int | str, ...]:
    number = number_of(value)
    if number is not None and not isinstance(value, str):
        return number
    if isinstance(value, list | tuple) and all(
        type(item) is int or isinstance(item, str) for item in value
    ):
        return tuple(value)
    raise wrong(f"{shown(value)} is not a number of GPUs: write 1, 0.5, or a list of ids")


GPU_AMOUNT = spelled_as(
    or_word("none", _parse_gpus, "none"),
    unchanged,
    {"type": "number", "minimum": 0},
    _GPU_IDS,
    _NONE,
)
"""A number of GPUs, a share of one, ids, or "none"."""

GpusOrAuto = Annotated[
    float | tuple[int | str, ...] | Literal["auto"],
    *spelled_as(or_word("auto", _parse_gpus, "auto"), unchanged, _COUNT, _GPU_IDS, _AUTO),
]


TEXT_SCHEMA = {"type": "string"}


def one_or_many(value: object) -> object:
    """Turns a single value into a list of one."""
    return (value,) if isinstance(value, str | int | float) else value


ONE_OR_MANY = any_of(TEXT_SCHEMA, {"type": "array", "items": TEXT_SCHEMA})
"""The schema of one text or a list of texts."""


def text_without_null(value: object) -> object:
    """Refuses NUL, which ends a string in C: no path, argument or variable can contain it."""
    if isinstance(value, str) and "\0" in value:
        raise wrong("must not contain a NUL character")
    return value


Text = Annotated[str, BeforeValidator(text_without_null)]


def joined(words: Iterable[str]) -> str:
    """Returns `a, b or c`, for messages."""
    *head, last = list(words)
    return f"{', '.join(head)} or {last}" if head else last
