"""Formats the status: of the daemon and all services, or of one service. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from servd.cli.render import service_facts as facts
from servd.cli.render.columns import ServiceTable, service_table, worker_table
from servd.cli.render.figures import ago, duration, elapsed, when
from servd.cli.render.line import Span, StyledLine, flowed, indented
from servd.cli.render.output import in_brief
from servd.cli.render.service_facts import ServiceRow
from servd.core.quick_dataclass import dataclass

COMPACT_FROM = 6
"""Number of services from which each is one row, problems first."""

_BRIEF = 6
"""Changes of a reload that are listed one by one; more are counted by kind."""

_LAST_LINES = 3


@dataclass(frozen=True, slots=True)
class Page:
    """Where lines are shown: `width` cells for tables; `wrap` for sentences, None for one line of
    any length; `now` in local time.
    """

    width: int
    wrap: int | None
    now: datetime


def status_lines(status: Mapping[str, Any], page: Page) -> list[StyledLine]:
    """Formats a head, then the services."""
    return [*head_lines(status, page), StyledLine(), *table_lines(status["services"], page)]


def table_lines(services: Sequence[ServiceRow], page: Page) -> Iterator[StyledLine]:
    """Yields the services: with their details, or from six on as a compact table."""
    if len(services) >= COMPACT_FROM:
        yield from _compact(sorted(services, key=facts.by_problem), page)
    else:
        yield from _detailed(services, page)


def head_lines(status: Mapping[str, Any], page: Page) -> Iterator[StyledLine]:
    """Yields how the whole is, and the last reload."""
    yield from (
        StyledLine.of(Span(text, "bold")) for text in flowed(summary(status, page.now), page.wrap)
    )
    for note in remarks_on_all(status):
        yield from indented(note.text, page.wrap, 0, note.style)
    config = status["config"]
    loaded = f"generation {config['generation']}, loaded {when(config['loaded_at'], page.now)}"
    yield from map(StyledLine.of, flowed([config["path"], loaded], page.wrap))
    yield from _last_reload(status, page)
    if (act := status["last_act"]) is not None and act["outcome"] != "unchanged":
        yield from _report("last manual action", act, page)


def summary(status: Mapping[str, Any], now: datetime) -> list[str]:
    """Returns the daemon and its state in a few parts."""
    up = f"up {duration(elapsed(status['started_at'], now))}"
    return [f"servd {status['version']}", readiness(status), f"pid {status['pid']}", up]


def remarks_on_all(status: Mapping[str, Any]) -> Iterator[Span]:
    """Yields what drains before this daemon, and how many services are in which trouble."""
    if status["predecessor"] is not None:
        yield Span(f"the previous daemon is draining: pid {status['predecessor']}", "yellow")
    if troubles := _troubles(status["services"]):
        yield Span(troubles, "yellow")


def readiness(status: Mapping[str, Any]) -> str:
    """Returns `running`, or `20 of 21 ready` while something is not ready."""
    counted = [service for service in status["services"] if facts.is_counted(service)]
    ready = sum(service["state"] in facts.WELL for service in counted)
    state = str(status["state"])
    if ready == len(counted):
        return state
    count = f"{ready} of {len(counted)} ready"
    return count if state == "running" else f"{state}, {count}"


def _troubles(services: Sequence[ServiceRow]) -> str:
    """Returns `1 failed, 2 waiting`: services that are not ready, and those with errors."""
    states = Counter[str]()
    for service in sorted(services, key=facts.by_problem):
        if service["state"] not in facts.WELL and facts.is_counted(service):
            task = "task " if facts.state_of(service) == "running" else ""
            states[f"{task}{facts.state_of(service)}"] += 1
        elif facts.is_problem(service):
            states["with errors"] += 1
    return ", ".join(f"{count} {state}" for state, count in states.items())


def _compact(services: Sequence[ServiceRow], page: Page) -> Iterator[StyledLine]:
    by_name = {service["name"]: service for service in services}
    for service, lines in _with_rows(services, page):
        yield from lines
        if service is not None:
            yield from remarks(service, by_name, page, indent=4)


def _detailed(services: Sequence[ServiceRow], page: Page) -> Iterator[StyledLine]:
    by_name = {service["name"]: service for service in services}
    for service, lines in _with_rows(services, page):
        yield from lines
        if service is not None:
            width = None if page.wrap is None else page.wrap - 2
            for text in flowed(_where(service), width):
                yield StyledLine.of("  ", Span(text, "dim"))
            if answers := facts.answers(service):
                yield from indented(answers.text, page.wrap, 2, answers.style)
            yield from remarks(service, by_name, page, indent=2, output=_LAST_LINES)


def _with_rows(
    services: Sequence[ServiceRow], page: Page
) -> Iterator[tuple[ServiceRow | None, list[StyledLine]]]:
    """Yields the head of the table, then each service with its row. A name that does not fit is
    shown whole, in a line before its row.
    """
    table = service_table(services, page.width, page.now)
    yield None, [table.head.restyled("dim")]
    for service, row in zip(services, table.rows, strict=True):
        yield service, _whole(service["name"], row, table)


def _whole(name: str, row: StyledLine, table: ServiceTable) -> list[StyledLine]:
    if len(name) <= table.names:
        return [row]
    _, *rest = row
    return [StyledLine.of(Span(name, "bold")), StyledLine((Span(" " * table.names), *rest))]


def _where(service: ServiceRow) -> list[str]:
    """Returns its addresses, generation and pids."""
    parts = [facts.addresses(service)]
    if processes := service["processes"]:
        parts.append(f"generation {service['generation']}")
        parts.append(f"pid {' '.join(str(process['pid']) for process in processes)}")
    return parts


def remarks(
    service: ServiceRow,
    services: Mapping[str, ServiceRow],
    page: Page,
    *,
    indent: int,
    output: int | None = 1,
) -> Iterator[StyledLine]:
    """Yields all that is out of the ordinary with a service, with the last `output` lines that a
    failed worker printed (None: all).
    """
    for note in facts.notes(service, page.now):
        yield from indented(note.text, page.wrap, indent, note.style)
    if why := facts.reason(service, services):
        yield from indented(why, page.wrap, indent, facts.reason_style(service))
    for line in facts.last_output(service, output):
        yield from indented(f"| {line}", page.wrap, indent, "dim")


def detail_lines(
    service: ServiceRow, services: Mapping[str, ServiceRow], page: Page
) -> Iterator[StyledLine]:
    """Yields one service with all its workers."""
    state = facts.state_of(service)
    yield StyledLine.of(
        Span(service["name"], "bold"), "  ", Span(state, facts.STYLES.get(state, "")),
        f" {facts.in_state(service, page.now)}",
    )  # fmt: skip
    yield from detail_body(service, services, page, indent=2)


def detail_body(
    service: ServiceRow, services: Mapping[str, ServiceRow], page: Page, *, indent: int
) -> Iterator[StyledLine]:
    """Yields everything about a service but its name and state."""
    yield from remarks(service, services, page, indent=indent, output=None)
    about = [facts.addresses(service)]
    if service["public_url"]:
        about.append(f"public URL {service['public_url']}")
    if service["depends_on"]:
        needs = (_with_state(name, services) for name in service["depends_on"])
        about.append(f"depends on {', '.join(needs)}")
    if answers := facts.answers(service):
        about.append(answers.text)
    if service["restarts"]:
        about.append(f"restarts: {service['restarts']}")
    for fact in about:
        yield from indented(fact, page.wrap, indent)
    ends = service["certificate_expires_at"]
    shown = {note.text for note in facts.notes(service, page.now)}
    if ends and (certificate := facts.certificate(service, page.now)).text not in shown:
        yield from indented(certificate.text, page.wrap, indent)
    if processes := service["processes"]:
        for line in worker_table(processes, page.width - indent, page.now):
            yield StyledLine((Span(" " * indent), *line))


def _with_state(name: str, services: Mapping[str, ServiceRow]) -> str:
    return f"{name} ({facts.state_of(services[name])})" if name in services else name


def _last_reload(status: Mapping[str, Any], page: Page) -> Iterator[StyledLine]:
    """Yields the last reload that changed something or failed, and an unchanged one since."""
    if status["last_reload"] is None:
        return
    yield from _report("last reload", status["last_reload"], page)
    if status["unchanged_at"] is not None:
        text = f"since then: reload without changes {when(status['unchanged_at'], page.now)}"
        yield from indented(text, page.wrap, 2, "dim")
    elif status["last_reload"]["error"] or status["last_reload"]["details"]:
        yield from indented("The previous configuration is still running.", page.wrap, 2)


def _report(title: str, report: Mapping[str, Any], page: Page) -> Iterator[StyledLine]:
    outcome = report["outcome"].replace("_", " ")
    changes = report["changes"]
    about = changes_in_brief(changes) if changes else ""
    if title != "last reload" and not changes:
        about = report["why"]
    text = f"{title}: {outcome} {when(report['at'], page.now)}{'  ' if about else ''}{about}"
    failed = outcome in ("invalid", "rolled back")
    yield from indented(text, page.wrap, 0, "red" if failed else "")
    for detail in report["details"] or filter(None, [report["error"]]):
        yield from indented(detail, page.wrap, 2, "red")
    for line in report["last_lines"][-_LAST_LINES:]:
        yield from indented(f"| {line}", page.wrap, 2, "dim")
    for key in report["restart_needed"]:
        yield from indented(f"{key} takes effect when servd is restarted", page.wrap, 2, "yellow")


def changes_in_brief(changes: Sequence[Mapping[str, Any]]) -> str:
    """Formats changes: each of a few, `+ 2 add, ~ 28 roll` of many."""
    if len(changes) <= _BRIEF:
        return in_brief(changes)
    kinds = Counter((change["sign"], change["kind"]) for change in changes)
    return ", ".join(f"{sign} {count} {kind}" for (sign, kind), count in kinds.items())


def problems_again(services: Sequence[ServiceRow], page: Page) -> Iterator[StyledLine]:
    """Yields the names of services with problems, for the end of a long table."""
    problems = filter(facts.is_problem, sorted(services, key=facts.by_problem))
    found = [f"{s['name']} ({_trouble(s)})" for s in problems]
    if found:
        yield StyledLine()
        text = f"{len(found)} with problems, shown first: {', '.join(found)}"
        yield from indented(text, page.wrap, 0, "yellow")


def _trouble(service: ServiceRow) -> str:
    return "errors" if service["state"] in facts.WELL else facts.state_of(service)


def last_seen(status: Mapping[str, Any], now: datetime) -> str:
    """Returns where the last reload stands, in one short line for a screen; "" before the first."""
    report = status["last_reload"]
    if report is None:
        return ""
    outcome = report["outcome"].replace("_", " ")
    about = report["error"] or changes_in_brief(report["changes"])
    since = ", since then unchanged" if status["unchanged_at"] else ""
    return f"last reload: {outcome} {ago(report['at'], now)}{since}{'  ' if about else ''}{about}"
