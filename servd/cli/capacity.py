"""`servd plan --capacity`: asks for measurements, and shows what a load needs."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from servd.capacity.measured import (
    Given,
    Measurements,
    UnmeasuredError,
    measurements,
    measurements_of,
    network,
)
from servd.capacity.network import Goal, Outlook, outlooks
from servd.capacity.station import Demand, Forecast
from servd.cli.admin_options import admin_client
from servd.cli.capacity_options import CapacityQuestion
from servd.cli.render.output import print_json, say
from servd.cli.source import load_whole
from servd.control.client import AdminClient, NoDaemonError
from servd.core.errors import ServdError, UsageError

_HEAD = ("SERVICE", "", "WORKERS", "CPUS", "BUSY", "ANSWERED/S", "REFUSED", "MEAN MS", "P95 MS")


def show_capacity(
    config: str | None, admin: str | None, question: CapacityQuestion, *, as_json: bool
) -> None:
    """Prints what a load needs. Raises `UsageError`, and `UnmeasuredError` if it is unknown."""
    measured, is_running = _measured(config, admin, question)
    rates = _rates(measured, question)
    _require(measured, question)
    given = Given(
        {name: Demand(whole - cpu, cpu) for name, (whole, cpu) in question.times.items()},
        question.calls,
    )
    try:
        found = network(measured, list(rates), given)
    except UnmeasuredError as error:
        raise error if is_running else _not_running(error) from None
    goal = Goal(utilisation=question.utilisation)
    looks = outlooks(found.nodes, rates, goal)
    notes = [*found.notes, *_warnings(looks, measured.cpus, goal)]
    if as_json:
        print_json(_as_json(looks, measured.cpus, goal, notes))
        return
    click.echo(_table(_HEAD, [row for look in looks for row in _rows(look)]))
    click.echo("")
    click.echo(_table(("SERVICE", "ARRIVE/S", "SERVICE MS", "CPU MS", "CALLS"), _needs(looks)))
    for note in notes:
        say(f"note: {note}")


def _measured(
    config: str | None, admin: str | None, question: CapacityQuestion
) -> tuple[Measurements, bool]:
    """Returns what the daemon has measured, or a configuration without measurements."""
    try:
        client = admin_client(config, admin)
        found = _ask(client)
        if question.measure:
            say(f"measuring for {question.measure:g} s: keep the load up")
            time.sleep(question.measure)
            found = _ask(client).since(found)
        return found, True
    except NoDaemonError:
        if admin:
            raise
    from servd.host.facts import inspect_host
    from servd.plan.build import build_loaded

    loaded = load_whole(config)
    host = inspect_host(loaded.config, os.environ)
    return measurements(build_loaded(loaded, host, ""), host.usable_cpus, {}), False


def _ask(client: AdminClient) -> Measurements:
    answer = client.get("/v1/measurements")
    if not answer.good or not isinstance(answer.body, dict):
        raise client.unexpected(answer)
    return measurements_of(answer.body)


def _not_running(error: UnmeasuredError) -> ServdError:
    return ServdError(
        f"servd is not running for this configuration, so nothing is measured: start it and send"
        f" load, or give --service-time NAME=TIME ({error})"
    )


def _rates(measured: Measurements, question: CapacityQuestion) -> dict[str, float]:
    """Returns the load by service. Raises `UsageError`."""
    public = [service.name for service in measured.services if service.public]
    rates = dict(question.rates)
    if "" in rates:
        if len(public) != 1:
            names = ", ".join(public) or "none"
            raise UsageError(
                f"--capacity RATE needs one public service, and there are: {names}."
                " Write --capacity NAME=RATE"
            )
        rates[public[0]] = rates.pop("")
    return rates


def _require(measured: Measurements, question: CapacityQuestion) -> None:
    """Raises `UsageError` for a name that is not a service."""
    known = [service.name for service in measured.services]
    called = [name for pair in question.calls for name in pair]
    elsewhere = [service.name for service in measured.services if service.kind == "external"]
    for name in question.rates:
        if name in elsewhere:
            raise UsageError(f"{name} runs elsewhere: ask for the capacity of what is here")
    for name in (*question.rates, *question.times, *called):
        if name and name not in known:
            raise UsageError(f'unknown service "{name}". Services: {", ".join(known)}')


def _warnings(looks: Sequence[Outlook], cpus: int, goal: Goal) -> Iterator[str]:
    for look in looks:
        name, now = look.node.name, look.now
        if now.lost >= 0.0005:
            yield (
                f"{name} refuses {100 * now.lost:.1f} % with 503 now: limits.queue ="
                f" {look.node.station.queue} for each worker"
            )
        if now.p95 is None and now.arrivals:
            yield f"{name} cannot keep up now: its queue grows without end"
        if look.needed is None:
            yield f"no number of workers of {name} is enough: see limits.queue"
    needed = _cpus_needed(looks, goal)
    if needed > cpus:
        yield f"this needs {math.ceil(needed)} CPUs, and servd may use {cpus}"


def _cpus_needed(looks: Sequence[Outlook], goal: Goal) -> float:
    return sum(look.now.arrivals * look.node.demand.cpu for look in looks) / goal.utilisation


def _rows(look: Outlook) -> Iterator[tuple[str, ...]]:
    yield (look.node.name, "now", *_figures(look.node.station.workers, look.now))
    if look.needed is not None and look.then is not None:
        yield ("", "needed", *_figures(look.needed.workers, look.then))


def _figures(workers: int, forecast: Forecast) -> tuple[str, ...]:
    return (
        str(workers),
        f"{forecast.cpus:.2f}",
        "-" if math.isinf(forecast.utilisation) else f"{100 * forecast.utilisation:.0f}%",
        _short(forecast.throughput),
        f"{100 * forecast.lost:.1f}%",
        _ms(forecast.mean),
        _ms(forecast.p95),
    )


def _needs(looks: Sequence[Outlook]) -> Iterator[tuple[str, ...]]:
    for look in looks:
        demand = look.node.demand
        calls = ", ".join(f"{name} {count:.3g}" for name, count in look.node.calls.items())
        yield (
            look.node.name,
            _short(look.now.arrivals),
            _ms(demand.seconds),
            _ms(demand.cpu),
            calls or "-",
        )


def _ms(seconds: float | None) -> str:
    return "endless" if seconds is None else _short(1000 * seconds)


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def _table(head: Sequence[str], rows: Iterator[tuple[str, ...]] | Sequence[tuple[str, ...]]) -> str:
    lines = [tuple(head), *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    words = {0, 1} if len(head) == len(_HEAD) else {0, len(head) - 1}
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in words else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _as_json(
    looks: Sequence[Outlook], cpus: int, goal: Goal, notes: Sequence[str]
) -> dict[str, Any]:
    return {
        "utilisation": goal.utilisation,
        "cpus": {
            "usable": cpus,
            "busy": round(sum(look.now.cpus for look in looks), 4),
            "needed": round(_cpus_needed(looks, goal), 4),
        },
        "services": [_service_json(look) for look in looks],
        "notes": list(notes),
    }


def _service_json(look: Outlook) -> dict[str, Any]:
    demand, needed = look.node.demand, look.needed
    return {
        "name": look.node.name,
        "arrivals": look.now.arrivals,
        "service_ms": round(1000 * demand.seconds, 4),
        "cpu_ms": round(1000 * demand.cpu, 4),
        "variability": round(demand.variability, 4),
        "calls": dict(look.node.calls),
        "now": _forecast_json(look.node.station.workers, look.now),
        "needed": _forecast_json(needed.workers, look.then)
        if needed is not None and look.then is not None
        else None,
    }


def _forecast_json(workers: int, forecast: Forecast) -> Mapping[str, Any]:
    return {
        "workers": workers,
        "cpus": round(forecast.cpus, 4),
        "utilisation": _finite(forecast.utilisation),
        "capacity": _finite(forecast.capacity),
        "throughput": round(forecast.throughput, 4),
        "refused": round(forecast.lost, 6),
        "mean_ms": _finite(forecast.mean, 1000),
        "p95_ms": _finite(forecast.p95, 1000),
    }


def _finite(value: float | None, factor: float = 1.0) -> float | None:
    return None if value is None or math.isinf(value) else round(factor * value, 4)
