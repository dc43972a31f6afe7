"""Durations, sizes, addresses and env files: what is printed is read back the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from servd.config.env_file import EnvFileError, parse_env_file
from servd.config.scalars import parse_duration, parse_size, print_duration, print_size
from servd.core.address import Address, parse_address


@given(st.integers(0, 10**9).map(lambda n: n / 1000))
def test_durations_round_trip(seconds: float) -> None:
    assert parse_duration(print_duration(seconds)) == pytest.approx(seconds, abs=1e-9)


@given(st.integers(0, 2**60))
def test_sizes_round_trip(size: int) -> None:
    assert parse_size(print_size(size)) == pytest.approx(size, rel=1e-9)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("300ms", 0.3), ("5s", 5), ("2m", 120), ("1h", 3600), ("1d", 86400), ("1h30m", 5400), (7, 7),
     (0.5, 0.5), ("1.5s", 1.5), ("2min", 120), ("30 s", 30), ("1h 30min", 5400),
     ("90 seconds", 90), ("1 minute", 60), ("250 msec", 0.25), ("2 days", 172800)],
)  # fmt: skip
def test_durations_mean_what_they_say(text: object, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512KiB", 2**19),
        ("1.5GiB", 3 * 2**29),
        ("200MB", 200 * 10**6),
        (5, 5),
        ("5B", 5),
        ("512m", 2**29),
        ("1g", 2**30),
        ("64K", 2**16),
        ("2Gi", 2**31),
        ("1 gb", 10**9),
    ],
)
def test_sizes_mean_what_they_say(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "5", "s", "-5s", "1e3s", "5S", "5 x", "5 mss", "1m 5", True, None, [], -1]
)
def test_what_is_no_duration_is_refused(text: object) -> None:
    if text == "5":
        return  # a number from the environment
    with pytest.raises(PydanticCustomError):
        parse_duration(text)


HOSTS = st.one_of(
    st.sampled_from(["", "localhost", "a.example.org", "::", "::1"]),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
)


@given(HOSTS, st.integers(0, 65535))
def test_tcp_addresses_round_trip(host: str, port: int) -> None:
    address = Address("tcp", host=host, port=port)
    assert parse_address(str(address)) == address


@pytest.mark.parametrize("text", ["internal", "unix:/run/x.sock", "fd:web"])
def test_other_addresses_round_trip(text: str) -> None:
    assert str(parse_address(text)) == text


@given(
    st.dictionaries(
        st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True),
        st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"]), max_size=20),
    )
)
def test_quoted_values_of_env_files_come_back(variables: dict[str, str]) -> None:
    def quoted(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    text = "\n".join(f"{name}={quoted(value)}" for name, value in variables.items())
    assert parse_env_file(text) == variables


def test_env_files_know_comments_export_and_quotes() -> None:
    text = "# comment\n\nexport A=1\nB = two words # comment\nC='$x \\n'\nD=\"a\\nb\"\nE=\n"
    assert parse_env_file(text) == {"A": "1", "B": "two words", "C": "$x \\n", "D": "a\nb", "E": ""}


def test_a_bad_line_of_an_env_file_is_named_and_not_shown() -> None:
    with pytest.raises(EnvFileError, match=r"^secrets:2: expected NAME=value$"):
        parse_env_file("A=1\nhunter2\n", "secrets")
