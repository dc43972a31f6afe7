"""What there is to say about one service of the status. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from servd.cli.render.figures import ago, duration, elapsed, gigabytes, local, number
from servd.cli.render.line import Span
from servd.cli.render.output import workers as workers_of

ServiceRow = Mapping[str, Any]

WELL = ("ready", "completed", "exited", "rolling")
"""States of which /readyz says that a service is ready."""

STYLES = {
    "ready": "green", "completed": "green", "exited": "green", "rolling": "cyan",
    "starting": "cyan", "waiting": "cyan", "running": "cyan", "reloading": "cyan",
    "degraded": "yellow", "unhealthy": "yellow", "draining": "dim", "backoff": "bold red",
    "failed": "bold red", "stopping": "dim", "stopped": "dim",
}  # fmt: skip

_RANKS = {
    "failed": 0, "backoff": 1, "degraded": 2, "waiting": 4, "stopping": 5, "starting": 5,
    "rolling": 5, "running": 5, "ready": 6, "exited": 7, "completed": 7, "stopped": 8,
}  # fmt: skip
_ERRORS_RANK = 3
_LAST_PROBLEM = 4

_CERTIFICATE_SECONDS = 14 * 86_400
"""A certificate that expires within that time is worth a note everywhere."""

_ID_CELLS = 12
"""Cells of a GPU that has no number: MIG-3a1b2c4d."""

_DIGITS = re.compile(r"(\d+)")


def state_of(service: ServiceRow) -> str:
    """Returns its state; a task that has started is running."""
    state = str(service["state"])
    return "running" if service["kind"] == "task" and state == "starting" else state


def rank(service: ServiceRow) -> int:
    """Returns a number that is the lower, the more it needs attention."""
    found = _RANKS.get(state_of(service), 5)
    if found > _LAST_PROBLEM and (service["error"] or service["crash_loop"]):
        return _ERRORS_RANK
    return found


def is_problem(service: ServiceRow) -> bool:
    """Whether it needs attention."""
    return rank(service) <= _LAST_PROBLEM


def by_problem(service: ServiceRow) -> tuple[Any, ...]:
    """A key that sorts problems first, then by name with numbers in their order."""
    return rank(service), natural(service["name"])


def natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts `worker-2` before `worker-10`."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in _DIGITS.split(name)]


def is_counted(service: ServiceRow) -> bool:
    """Whether it has to be ready for the whole to be ready."""
    return bool(service["workers"]["desired"]) and state_of(service) != "stopped"


def cpu(service: ServiceRow) -> float | None:
    """Returns the CPU percentage of all its workers; None if none is measured."""
    found = [p["cpu_percent"] for p in service["processes"] if p["cpu_percent"] is not None]
    return round(sum(found), 1) if found else None


def memory(service: ServiceRow) -> int:
    """Returns the memory of all its workers."""
    return sum(process["rss_bytes"] or 0 for process in service["processes"])


def gpu_cell(processes: Sequence[Mapping[str, Any]]) -> str:
    """Returns `0,1 38.2G`: the GPUs of workers by number (else the beginning of the id), and the
    memory that they hold there; `0,1 38.2/70G` where it is declared.
    """
    uses = [use for process in processes for use in process["gpus"]]
    if not uses:
        return ""
    names = {use["number"] or use["id"][:_ID_CELLS] for use in uses}
    used = _sum(use["memory_bytes"] for use in uses)
    declared = _sum(use.get("declared_bytes") for use in uses)
    amounts = [gigabytes(used)] if declared is None else [gigabytes(used), gigabytes(declared)]
    unit = "" if amounts == ["-"] else "G"
    return f"{','.join(sorted(names, key=_by_number))} {'/'.join(amounts)}{unit}"


def _by_number(name: str) -> tuple[bool, int, str]:
    return (not name.isdecimal(), int(name) if name.isdecimal() else 0, name)


def _sum(values: Iterable[int | None]) -> int | None:
    """Returns a sum; None if a value is unknown."""
    known = list(values)
    return None if None in known else sum(value or 0 for value in known)


def ready_cell(service: ServiceRow) -> Span:
    """Returns `2/3`: its workers that are ready, of those wanted. Tasks, and services that run
    elsewhere, have no such number.
    """
    if service["kind"] in ("task", "external"):
        return Span(service["kind"], "dim")
    ready, desired = service["workers"]["ready"], service["workers"]["desired"]
    return Span(f"{ready}/{desired}", "yellow" if ready < desired else "")


def rate_style(share: float | None) -> str:
    """Returns the style of a share of errors."""
    return "" if not share else "bold red" if share >= 0.5 else "yellow"


def addresses(service: ServiceRow) -> str:
    """Returns the addresses of a service, and which of them its program binds."""
    if service["kind"] == "task":
        return "task"
    by_program = service["bound_by"] == "program"
    found = [f"{url} (bound by the program)" if by_program else url for url in service["listen"]]
    found += [
        f"{address} (bound by the program, not in the config)"
        for address in service["binds_itself"]
    ]
    return ", ".join(found) or ("internal" if service["bound_by"] else "no address")


def address_cell(service: ServiceRow) -> str:
    """Returns its addresses in a few words, for a column."""
    by_program = " (program)" if service["bound_by"] == "program" else ""
    found = [f"{url}{by_program}" for url in service["listen"]]
    found += [f"{address} (program)" for address in service["binds_itself"]]
    return ", ".join(found) or ("internal" if service["bound_by"] else "-")


def blocked_by(service: ServiceRow, services: Mapping[str, ServiceRow]) -> str:
    """Returns what a waiting service waits for, and what that waits for in the end; "" if it waits
    for no other.
    """
    direct = [name for name in service["depends_on"] if _is_unmet(name, services)]
    if service["state"] != "waiting" or not direct:
        return ""
    roots = _roots(direct, services)
    deeper = roots and set(roots) != set(direct)
    cause = f"; cause: {_states(roots, services)}" if deeper else ""
    return f"waiting for {_states(direct, services)}{cause}"


def _is_unmet(name: str, services: Mapping[str, ServiceRow]) -> bool:
    return name not in services or services[name]["state"] not in WELL


def _roots(names: Sequence[str], services: Mapping[str, ServiceRow]) -> list[str]:
    """Returns the dependencies that wait for no other one."""
    found: dict[str, None] = {}
    seen, queue = set(names), list(names)
    while queue:
        name = queue.pop(0)
        needs = services[name]["depends_on"] if name in services else ()
        unmet = [other for other in needs if _is_unmet(other, services)]
        if not unmet:
            found[name] = None
        queue += [other for other in unmet if other not in seen]
        seen.update(unmet)
    return list(found)


def _states(names: Sequence[str], services: Mapping[str, ServiceRow]) -> str:
    return ", ".join(
        f"{name} ({state_of(services[name])})" if name in services else f"{name} (not running)"
        for name in names
    )


def reason(service: ServiceRow, services: Mapping[str, ServiceRow]) -> str:
    """Returns in one text why it is not well; "" if it is."""
    if blocked := blocked_by(service, services):
        return blocked
    if service["error"]:
        loop = "crash loop: " if service["crash_loop"] else ""
        return f"{loop}{service['error']}"
    return blocked_by(service, services)


def reason_style(service: ServiceRow) -> str:
    """Returns the style of a reason."""
    return "red" if service["error"] and service["state"] != "waiting" else "cyan"


def last_output(service: ServiceRow, most: int | None = None) -> list[str]:
    """Returns what a worker printed before it exited: all that is known, or at most the last
    lines, unless the reason has the very last one.
    """
    exit_, error = service["last_exit"], service["error"]
    if exit_ is None or not error:
        return []
    lines = [line.rstrip() for line in exit_["last_lines"] if line.strip()]
    if most is None or not lines:
        return lines
    return [] if lines[-1].strip() in error else lines[-most:]


def notes(service: ServiceRow, now: datetime) -> Iterator[Span]:
    """Yields what is out of the ordinary, but no error."""
    if by_hand := service["by_hand"]:
        count = workers_of(by_hand["workers"])
        scale = service.get("autoscale")  # missing in an older daemon
        instead = "autoscale waits" if scale else f"the config says {by_hand['file']}"
        yield Span(f"{count} (set manually; {instead})", "yellow")
    elif (scale := service.get("autoscale")) and scale["in_flight"] is not None:
        limits = f"{scale['min']} to {scale['max']} workers"
        wanted = f"{scale['target_in_flight']:g} requests in flight each"
        yield Span(f"{limits} for {wanted}, now {scale['in_flight']:g} in all", "dim")
    if coming := service["coming"]:
        ready = f"{coming['ready']} of {coming['desired']} workers ready"
        said = f": {text}" if (text := coming.get("status_text")) else ""
        yield Span(f"generation {coming['generation']} is starting: {ready}{said}", "cyan")
    for process in service["processes"]:
        if process["state"] == "starting" and (text := process.get("status_text")):
            yield Span(f"worker {process['worker']}: {text}", "cyan")
    for drain in service["draining"]:
        yield Span(f"generation {drain['generation']} drains: {drain['waiting_for']}", "dim")
    for notice in service.get("notices", ()):
        yield Span(notice, "yellow")
    if (ends := service["certificate_expires_at"]) and _left(ends, now) < _CERTIFICATE_SECONDS:
        yield certificate(service, now)


def certificate(service: ServiceRow, now: datetime) -> Span:
    """Returns when its certificate expires."""
    ends = service["certificate_expires_at"]
    left = _left(ends, now)
    if left <= 0:
        return Span(f"certificate expired {local(ends, now)} ({ago(ends, now)})", "bold red")
    style = "yellow" if left < _CERTIFICATE_SECONDS else ""
    return Span(f"certificate expires {local(ends, now)} (in {duration(left, 1)})", style)


def _left(ends: str, now: datetime) -> float:
    return (datetime.fromisoformat(ends) - now).total_seconds()


def answers(service: ServiceRow) -> Span | None:
    """Returns the answers with 4xx and 5xx of the last seconds; None if there were none."""
    rates = {code: service[f"rps_{code}"] for code in ("4xx", "5xx")}
    shown = [f"{number(rate)} {code}/s" for code, rate in rates.items() if rate]
    return Span(f"answers: {', '.join(shown)}", "yellow") if shown else None


def _is_over(service: ServiceRow) -> bool:
    return (service["kind"], service["state"]) == ("task", "failed")


def in_state(service: ServiceRow, now: datetime) -> str:
    """Returns since when it is in its state: `for 3 min`, or when a task was completed."""
    if service["state"] in ("completed", "exited") or _is_over(service):
        return ago(service["since"], now)
    return f"for {duration(elapsed(service['since'], now))}"


_NEW_IN_SERVICE = {"bound_by": "servd", "binds_itself": (), "error_rate": None}
_NEW_IN_RATES = {"error_rate": None, "rps_4xx": None, "rps_5xx": None}
_NEW_IN_PROCESS = {**_NEW_IN_RATES, "gpus": ()}


def completed(status: dict[str, Any]) -> dict[str, Any]:
    """Returns the status of a daemon of an older version with the fields that it lacks."""
    since = {"since": status["started_at"]}
    services = [
        {**_NEW_IN_SERVICE, **since, **_NEW_IN_RATES, **service}
        | {"processes": [{**_NEW_IN_PROCESS, **process} for process in service["processes"]]}
        for service in status["services"]
    ]
    return {"unchanged_at": None, **status, "services": services}
