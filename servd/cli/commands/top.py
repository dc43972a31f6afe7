"""`servd top`: shows services and workers live."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from servd.cli.admin_options import admin_client, admin_options
from servd.cli.render.output import in_brief
from servd.cli.render.status_table import errors_of, number, size, where
from servd.control.client import AdminClient
from servd.core.printable import visible

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

_STYLES = {
    "ready": "green", "completed": "green", "exited": "green", "rolling": "cyan",
    "starting": "cyan", "waiting": "cyan", "degraded": "yellow", "unhealthy": "yellow",
    "draining": "bright_black", "backoff": "bold red", "failed": "bold red",
    "stopping": "bright_black", "stopped": "bright_black",
}  # fmt: skip

ServiceRow = Mapping[str, Any]

_ORDERS: Mapping[str, tuple[str, Callable[[ServiceRow], Any]]] = {
    "g": ("graph", lambda service: 0),
    "n": ("name", lambda service: service["name"]),
    "r": ("requests", lambda service: -(service["rps"] or 0)),
    "c": ("CPU", lambda service: -_cpu(service)),
    "m": ("memory", lambda service: -_memory(service)),
}
"""Keys to press, with the name and the value that they sort services by."""


@click.command("top")
@admin_options
@click.option("--interval", default=1.0, type=click.FloatRange(0.1, 60), help="Seconds.")
@click.option("--once", is_flag=True, help="One look, then the end.")
def command(config: str | None, admin: str | None, interval: float, once: bool) -> None:
    """Show services and workers live: requests, latencies, CPU, memory, restarts. q ends it."""
    client = admin_client(config, admin)
    from rich.console import Console

    console = Console()
    if once or not console.is_terminal or console.is_dumb_terminal:
        console.print(_screen(visible(client.status()), "g", None, console.size.width))
        return
    with contextlib.suppress(KeyboardInterrupt):
        _live(client, console, interval)


def _live(client: AdminClient, console: Any, interval: float) -> None:
    """Draws until q is pressed. Raises `NoDaemonError` if the daemon is gone."""
    from rich.live import Live

    order = "g"
    with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            size = console.size
            shown = _screen(visible(client.status()), order, size.height, size.width)
            live.update(shown, refresh=True)
            key = pressed(interval)
            if key == "q":
                return
            order = key if key in _ORDERS else order


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """Yields a function that waits for a key, at most its argument in seconds; "" is none."""
    if not sys.stdin.isatty():
        yield _no_key
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)

    def pressed(seconds: float) -> str:
        readable, _, _ = select.select([descriptor], [], [], seconds)
        return os.read(descriptor, 1).decode(errors="replace") if readable else ""

    try:
        yield pressed
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _no_key(seconds: float) -> str:
    time.sleep(seconds)
    return ""


def _screen(status: dict[str, Any], order: str, height: int | None, width: int) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    services = sorted(status["services"], key=_ORDERS[order][1])
    workers = sum(len(service["processes"]) for service in services)
    rps = sum(service["rps"] or 0 for service in services)
    head = Text.assemble(
        ("servd ", "bold"), f"{status['version']}  ", _styled(status["state"]),
        f"  pid {status['pid']}  {len(services)} services  {workers} workers  {number(rps)} req/s",
    )  # fmt: skip
    foot = "q quit   sort by: " + "  ".join(
        f"{key} {name}{'*' if key == order else ''}" for key, (name, _) in _ORDERS.items()
    )
    parts: list[RenderableType] = [head]
    if (last := status["last_reload"]) is not None:
        text = f"last reload: {last['outcome']} at {last['at'][:19]}Z {in_brief(last['changes'])}"
        parts.append(Text(text, no_wrap=True, overflow="ellipsis"))
    rows = None if height is None else max(1, height - len(parts) - 4)
    parts.append(_table(services, rows, width))
    if height is not None:
        parts.append(Text(foot, style="dim", no_wrap=True, overflow="ellipsis"))
    return Group(*parts)


_ALL_COLUMNS = ("WORKERS", "REQ/S", "P50 MS", "P99 MS", "CPU%", "MEM", "RST")
_COLUMNS = (
    (72, _ALL_COLUMNS),
    (50, ("WORKERS", "REQ/S", "P99 MS", "MEM")),
    (36, ("WORKERS", "REQ/S")),
    (0, ("WORKERS",)),
)
"""Columns by the least width of the terminal that has room for them."""


def _table(services: list[ServiceRow], most: int | None, width: int) -> Table:
    """Returns rows for the services and their workers, at most `most`, with as many columns as
    `width` has room for.
    """
    from rich.table import Table

    table = Table(box=None, pad_edge=False, expand=True)
    table.add_column("SERVICE", no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column("STATE", no_wrap=True)
    columns = next(columns for least, columns in _COLUMNS if width >= least)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    rows = [row for service in services for row in _rows(service)]
    shown = rows if most is None or len(rows) <= most else rows[: most - 1]
    for row in shown:
        chosen = [row[2 + _ALL_COLUMNS.index(name)] for name in columns if len(row) > 1]
        table.add_row(*row[:2], *chosen)
    if len(shown) < len(rows):
        table.add_row(f"... {len(rows) - len(shown)} more lines", style="dim")
    return table


def _rows(service: ServiceRow) -> Iterator[tuple[RenderableType, ...]]:
    from rich.text import Text

    workers = service["workers"]
    yield (
        Text.assemble((service["name"], "bold"), "  ", (where(service), "dim")),
        _styled(service["state"]),
        f"{workers['ready']}/{workers['desired']}",
        *(number(service[key]) for key in ("rps", "p50_ms", "p99_ms")),
        number(round(_cpu(service), 1)),
        size(_memory(service)),
        str(service["restarts"]),
    )
    for line in errors_of(service):
        yield (Text(f"  {line}", style="yellow"),)
    if service["error"]:
        loop = "crash loop: " if service["crash_loop"] else ""
        yield (Text(f"  {loop}{service['error']}", style="red"),)
    for process in service["processes"]:
        yield (
            Text(f"  worker {process['worker']}  pid {process['pid']}", style="dim"),
            _styled(process["state"]),
            f"gen {process['generation']}",
            *(number(process[key]) for key in ("rps", "p50_ms", "p99_ms", "cpu_percent")),
            size(process["rss_bytes"]),
            "",
        )


def _styled(state: str) -> Text:
    from rich.text import Text

    return Text(state, style=_STYLES.get(state, ""))


def _cpu(service: ServiceRow) -> float:
    return sum(process["cpu_percent"] or 0.0 for process in service["processes"])


def _memory(service: ServiceRow) -> int:
    return sum(process["rss_bytes"] or 0 for process in service["processes"])
