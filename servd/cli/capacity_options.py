"""The options of `servd plan --capacity`."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Any

import click

from servd.core.errors import UsageError
from servd.core.quick_dataclass import dataclass

DEFAULT_UTILISATION = 70.0


@dataclass(frozen=True, slots=True)
class CapacityQuestion:
    """A load, and what was given instead of measurements. `rates` are requests per second by
    service, "" for the only public one; `times` are seconds, and the CPU's part of them, by
    service; `calls` are by caller and dependency. `measure`: seconds to measure for, from now on.
    """

    rates: Mapping[str, float]
    times: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    calls: Mapping[tuple[str, str], float] = field(default_factory=dict)
    measure: float = 0.0
    utilisation: float = DEFAULT_UTILISATION / 100


def capacity_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options; the command gets `question`, None without `--capacity`."""

    @click.option(
        "--capacity",
        multiple=True,
        metavar="[NAME=]RATE",
        help="Show what so many requests per second need; NAME where several services are public.",
    )
    @click.option(
        "--service-time",
        "times",
        multiple=True,
        metavar="NAME=TIME[,cpu=TIME]",
        help="With --capacity: what a request needs without waiting, in place of a measurement.",
    )
    @click.option(
        "--calls",
        multiple=True,
        metavar="NAME:DEPENDENCY=N",
        help="With --capacity: how often a request calls a dependency.",
    )
    @click.option(
        "--measure",
        metavar="DURATION",
        help="With --capacity: measure from now on, for so long; not since servd started.",
    )
    @click.option(
        "--utilisation",
        type=click.FloatRange(1, 100),
        metavar="PERCENT",
        help=f"With --capacity: how busy a service may be.  [default: {DEFAULT_UTILISATION:g}]",
    )
    @functools.wraps(command)
    def with_question(
        *arguments: Any,
        capacity: Sequence[str],
        times: Sequence[str],
        calls: Sequence[str],
        measure: str | None,
        utilisation: float | None,
        **others: Any,
    ) -> Any:
        question = None
        if capacity:
            question = CapacityQuestion(
                dict(_rate(text) for text in capacity),
                dict(_time(text) for text in times),
                dict(_call(text) for text in calls),
                _seconds(measure, "--measure") if measure else 0.0,
                (utilisation or DEFAULT_UTILISATION) / 100,
            )
        elif times or calls or measure or utilisation:
            raise UsageError("--service-time, --calls, --measure, --utilisation need --capacity")
        return command(*arguments, question=question, **others)

    return with_question


def _rate(text: str) -> tuple[str, float]:
    name, _, rate = text.rpartition("=")
    return name, _number(rate, f"--capacity {text}", "a number of requests per second")


def _time(text: str) -> tuple[str, tuple[float, float]]:
    match = re.fullmatch(r"([^=,]+)=([^=,]+)(?:,cpu=([^=,]+))?", text)
    if match is None:
        raise UsageError(f"--service-time {text}: write NAME=12ms or NAME=12ms,cpu=3ms")
    option = f"--service-time {text}"
    whole, cpu = _seconds(match[2], option), _seconds(match[3] or "0", option)
    if cpu > whole:
        raise UsageError(f"--service-time {text}: the CPU time is a part of the whole time")
    return match[1], (whole, cpu)


def _call(text: str) -> tuple[tuple[str, str], float]:
    match = re.fullmatch(r"([^:=]+):([^:=]+)=(.+)", text)
    if match is None:
        raise UsageError(f"--calls {text}: write NAME:DEPENDENCY=2")
    return (match[1], match[2]), _number(match[3], f"--calls {text}", "a number of calls")


def _number(text: str, option: str, what: str) -> float:
    from servd.config.scalars import number_of

    number = number_of(text)
    if number is None or number < 0:
        raise UsageError(f"{option}: {text!r} is not {what}")
    return number


def _seconds(text: str, option: str) -> float:
    from pydantic_core import PydanticCustomError

    from servd.config.scalars import parse_duration

    try:
        return parse_duration(text)
    except PydanticCustomError as error:
        raise UsageError(f"{option}: {error.message()}") from None
