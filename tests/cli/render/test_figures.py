"""Numbers, sizes and times in a few characters."""

from __future__ import annotations

from datetime import timedelta, timezone

import pytest

from servd.cli.render.figures import ago, duration, local, number, percent, size, when

from support.statuses import NOW


@pytest.mark.parametrize(
    ("share", "text"),
    [(None, "-"), (0.0, "0"), (0.0004, "<0.1"), (0.003, "0.3"), (0.0999, "10.0"), (0.24, "24"),
     (1.0, "100")],
)  # fmt: skip
def test_a_share_is_a_percentage(share: float | None, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (200, "3 min 20 s"), (3600, "1 h"),
     (3605, "1 h"), (90_000, "1 d 1 h"), (-5, "0 s")],
)  # fmt: skip
def test_a_duration_has_its_two_largest_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_time_is_local_with_its_date_unless_it_is_today() -> None:
    here = NOW.astimezone(timezone(timedelta(hours=2)))
    assert local("2026-03-04T09:05:06Z", here) == "11:05:06"
    assert local("2026-03-03T23:30:00Z", here) == "01:30:00"
    assert local("2026-03-03T20:30:00.123Z", here) == "2026-03-03 22:30"
    assert when("2026-03-04T11:57:00Z", here) == "13:57:00 (3 min ago)"


def test_a_clock_that_is_ahead_is_no_time_in_the_future() -> None:
    assert ago("2026-03-04T12:00:30Z", NOW) == "just now"


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (0.0, "0"), (1.25, "1.2"), (1234.0, "1234"), (123_456, "123k")]
)  # fmt: skip
def test_a_number_takes_six_characters_at_most(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (0, "-"), (2048, "2.0K"), (36_700_160, "35M"), (2**31, "2.0G")]
)  # fmt: skip
def test_a_size_takes_five_characters_at_most(value: int | None, text: str) -> None:
    assert size(value) == text
