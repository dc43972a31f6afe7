"""Formats the status as text of 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from servd.cli.render.output import cut, in_brief
from servd.cli.render.output import workers as workers_of

WIDTH = 80
_MAX_NAME_WIDTH = 20
_COLOURS = {
    "ready": "32", "completed": "32", "exited": "32", "rolling": "36", "starting": "36",
    "waiting": "36", "degraded": "33", "backoff": "31", "failed": "31", "stopping": "90",
    "stopped": "90",
}  # fmt: skip


def status_lines(status: dict[str, Any], *, colour: bool = False) -> list[str]:
    """Formats a table of the services, with notes below each, and the last reload."""
    config = status["config"]
    head = f"servd {status['version']}  {status['state']}  pid {status['pid']}"
    if status["predecessor"] is not None:
        head += f"  (its predecessor drains: pid {status['predecessor']})"
    generation = f"  (generation {config['generation']})"
    lines = [head, cut(config["path"], WIDTH - len(generation)) + generation, ""]
    names = [service["name"] for service in status["services"]]
    width = min(_MAX_NAME_WIDTH, max(map(len, [*names, "SERVICE"])))
    lines.append(
        f"{'SERVICE':<{width}}  {'STATE':<9}  {'WORKERS':>7}  GEN  {'REQ/S':>6}  {'P99 MS':>6}"
        f"  {'CPU%':>5}  {'MEM':>5}  RST"
    )
    for service in status["services"]:
        lines += _service(service, width, colour=colour)
    return lines + _last(status["last_reload"], "reload") + _last(status["last_act"], "act")


def detail_lines(service: dict[str, Any], *, colour: bool = False) -> list[str]:
    """Formats one service with all its workers."""
    name = service["name"]
    lines = [f"{name}  {_state(service['state'], colour=colour)}  {where(service)}"]
    if service["depends_on"]:
        lines.append(f"needs {', '.join(service['depends_on'])}")
    lines += [line.strip() for line in _notes(service)]
    lines += ["", "WORKER      PID  GEN  STATE      REQUESTS   REQ/S  P99 MS   CPU%    MEM"]
    lines += [
        f"{p['worker']:>6}  {p['pid']:>7}  {p['generation']:>3}  {p['state']:<9}"
        f"  {number(p['requests']):>8}  {number(p['rps']):>6}  {number(p['p99_ms']):>6}"
        f"  {number(p['cpu_percent']):>5}  {size(p['rss_bytes']):>5}"
        for p in service["processes"]
    ]
    return lines


def _service(service: dict[str, Any], width: int, *, colour: bool) -> list[str]:
    workers, processes = service["workers"], service["processes"]
    count = f"{workers['ready']}/{workers['desired']}"
    state = _state(f"{service['state']:<9}", colour=colour)
    cpu = [p["cpu_percent"] for p in processes if p["cpu_percent"] is not None]
    memory = sum(p["rss_bytes"] or 0 for p in processes)
    line = (
        f"{cut(service['name'], width):<{width}}  {state}  {count:>7}  {service['generation']:>3}"
        f"  {number(service['rps']):>6}  {number(service['p99_ms']):>6}"
        f"  {number(sum(cpu) if cpu else None):>5}  {size(memory):>5}  {service['restarts']:>3}"
    )
    return [line, *_notes(service)]


def _notes(service: dict[str, Any]) -> list[str]:
    """Formats the details that have no column."""
    pids = " ".join(str(p["pid"]) for p in service["processes"])
    notes = [f"{where(service)}{f'  pid {pids}' if pids else ''}"]
    if by_hand := service["by_hand"]:
        notes.append(f"{workers_of(by_hand['workers'])} by hand, the file says {by_hand['file']}")
    if coming := service["coming"]:
        ready = f"{coming['ready']} of {coming['desired']} workers ready"
        notes.append(f"generation {coming['generation']} is on its way: {ready}")
    notes += [
        f"generation {drain['generation']} drains: {drain['waiting_for']}"
        for drain in service["draining"]
    ]
    notes += errors_of(service)
    if service["error"]:
        notes.append(("crash loop: " if service["crash_loop"] else "") + service["error"])
    return [cut(f"  {note}", WIDTH) for note in notes]


def errors_of(service: Mapping[str, Any]) -> list[str]:
    """Returns a line on answers with 4xx and 5xx, if there were any."""
    rates = {code: service.get(f"rps_{code}") for code in ("4xx", "5xx")}
    shown = [f"{number(rate)} {code}/s" for code, rate in rates.items() if rate]
    return [f"answers: {', '.join(shown)}"] if shown else []


def where(service: Mapping[str, Any]) -> str:
    """Returns the addresses that a service listens on."""
    if service["kind"] == "task":
        return "task"
    found = [f"{address} (by itself)" for address in service.get("binds_itself", ())]
    return ", ".join([*service["listen"], *found]) or "internal"


def number(value: float | None) -> str:
    """Formats a number in at most six characters; None as a dash."""
    if value is None:
        return "-"
    if value >= 100_000:
        return f"{value / 1000:.0f}k"
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"


def size(value: int | None) -> str:
    """Formats bytes in at most five characters: `23M`, `1.4G`."""
    if not value:
        return "-"
    scaled, units = float(value), ["", "K", "M", "G", "T"]
    while scaled >= 1000 and len(units) > 1:
        scaled, units = scaled / 1024, units[1:]
    return f"{scaled:.1f}{units[0]}" if scaled < 10 and units[0] else f"{scaled:.0f}{units[0]}"


def _state(state: str, *, colour: bool) -> str:
    code = _COLOURS.get(state.strip())
    return f"\x1b[{code}m{state}\x1b[0m" if colour and code else state


def _last(last: dict[str, Any] | None, what: str) -> list[str]:
    if last is None:
        return []
    changes: Sequence[dict[str, Any]] = last["changes"]
    about = last["why"] if what == "act" and not changes else in_brief(changes)
    shown = f"last {what}: {last['outcome']} at {last['at'][:19]}Z  {about}"
    lines = ["", cut(shown.rstrip(), WIDTH)]
    lines += [f"  {detail}" for detail in last["details"] or filter(None, [last["error"]])]
    return lines + [f"  {key} waits for a restart of servd" for key in last["restart_needed"]]
