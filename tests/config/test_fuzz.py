"""No input makes loading raise: every sample, mutated a few thousand times.

The seed of each chunk is its number, so that a failure comes back.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from servd.config.find import Disk, Source
from servd.config.load import load_sources
from servd.core.diagnostics import render

SAMPLES = sorted((Path(__file__).parents[2] / "sample-configs").glob("*/servd.*"))
EVERYTHING = Path(__file__).parent / "everything.toml"
CHUNKS = 16
EACH = 250
VALUES = [
    "true", "-1", "0", "99999999999999999999999999", "1.5", '""', "''", "[]", "{}", "nan", "inf",
    "[[[[[[]]]]]]", '"${X}"', '"${"', '"${file:/nonexistent}"', '"${X:?why}"', '"$$"',
    '"\\u0000"', "1979-05-27T07:32:00Z", "null", "~", "*a", "&a x", "!!python/object:os.system x",
    "<<: *a", '"unix:"', '":99999"', '"[::1]:0"', '"fd:"', "{a: {b: {c: d}}}",
    "[1, [2, {x = 3}]]", "'", '"', "|", ">", "?", "- -", "%", "@", "`", "\t", "9" * 5000, "1e400",
    "9" * 400, "0x_", "0o9", "07", "1e999999", "x" * 5000,
]  # fmt: skip


def mutate(text: bytes, rng: random.Random) -> bytes:
    """One of many small harms."""
    harms: list[Callable[[bytes, random.Random], bytes]] = [
        flip, delete, insert, duplicate_line, drop_line, swap_lines, replace_value, rename_key,
        nest, truncate,
    ]  # fmt: skip
    for _ in range(rng.randint(1, 4)):
        text = rng.choice(harms)(text, rng)
    return text


def flip(text: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(text) + 1)
    return text[:at] + bytes([rng.randrange(256)]) + text[at + 1 :]


def delete(text: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(text) + 1)
    return text[:at] + text[at + rng.randint(1, 20) :]


def insert(text: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(text) + 1)
    return text[:at] + rng.choice(VALUES).encode() + text[at:]


def lines_changed(
    text: bytes, rng: random.Random, change: Callable[[list[bytes], int], None]
) -> bytes:
    lines = text.split(b"\n")
    change(lines, rng.randrange(len(lines)))
    return b"\n".join(lines)


def duplicate_line(text: bytes, rng: random.Random) -> bytes:
    return lines_changed(text, rng, lambda lines, at: lines.insert(at, lines[at]))


def drop_line(text: bytes, rng: random.Random) -> bytes:
    return lines_changed(text, rng, lambda lines, at: lines.__delitem__(at))


def swap_lines(text: bytes, rng: random.Random) -> bytes:
    def swap(lines: list[bytes], at: int) -> None:
        other = rng.randrange(len(lines))
        lines[at], lines[other] = lines[other], lines[at]

    return lines_changed(text, rng, swap)


def replace_value(text: bytes, rng: random.Random) -> bytes:
    def replace(lines: list[bytes], at: int) -> None:
        for sign in (b"=", b":"):
            if sign in lines[at]:
                key = lines[at].split(sign)[0]
                lines[at] = key + sign + b" " + rng.choice(VALUES).encode()
                return

    return lines_changed(text, rng, replace)


def rename_key(text: bytes, rng: random.Random) -> bytes:
    words = [b"services", b"web", b"app", b"listen", b"tls", b"env", b"depends_on", b"defaults"]
    return text.replace(rng.choice(words), rng.choice([*words, b"x", b"", b"a.b", b'"q u"']), 1)


def nest(text: bytes, rng: random.Random) -> bytes:
    deep = rng.choice([3, 50, 3000])
    return text + rng.choice(
        [
            b"\nx = " + b"[" * deep + b"]" * deep,
            b"\nx = " + b"{a=" * deep + b"1" + b"}" * deep,
            b"\nx: " + b"[" * deep + b"]" * deep,
            b"\n" + b"a." * deep + b"b = 1",
            b"\n- " * deep,
        ]
    )


def truncate(text: bytes, rng: random.Random) -> bytes:
    return text[: rng.randrange(len(text) + 1)]


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_no_input_raises_and_every_mistake_can_be_shown(chunk: int) -> None:
    rng = random.Random(chunk)
    for _ in range(EACH):
        sample = rng.choice([*SAMPLES, EVERYTHING])
        content = mutate(sample.read_bytes(), rng)
        if rng.random() < 0.1:  # the other language's parser has to survive it too
            sample = sample.with_suffix(".yaml" if sample.suffix == ".toml" else ".toml")
        loaded = load_sources([Source(str(sample), content)], str(sample), {}, Disk())
        for diagnostic in loaded.diagnostics:
            assert render(diagnostic, loaded.texts)
            assert diagnostic.message
