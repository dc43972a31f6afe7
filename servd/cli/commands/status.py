"""`servd status`: shows services and workers."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from typing import Any

import click

from servd.cli.admin_options import admin_client, admin_options
from servd.cli.commands.completion import service_names
from servd.cli.ray.options import address_option
from servd.cli.render.line import Span, StyledLine
from servd.cli.render.output import moves, print_json, print_lines, style_of, width_of
from servd.cli.render.status_table import (
    Page,
    detail_lines,
    problems_again,
    status_lines,
    table_lines,
)
from servd.cli.screen.feed import StatusFeed, now, printable_status
from servd.control.client import AdminClient
from servd.core.printable import visible

WATCH_INTERVAL_SECONDS = 1.0


@click.command("status")
@click.argument("name", required=False, shell_complete=service_names)
@admin_options
@click.option("--watch", "-w", is_flag=True, help="Update every second, until q or Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--engine", type=click.Choice(["ray"]), help="Show what runs in an engine: ray.")
@address_option
def command(
    name: str | None,
    config: str | None,
    admin: str | None,
    watch: bool,
    as_json: bool,
    engine: str | None,
    address: str,
) -> None:
    """Show services: state, problems, load, last reload.

    NAME shows one service with its workers.
    """
    if engine is not None:
        _show_ray(name, address, watch=watch, as_json=as_json)
        return
    client = admin_client(config, admin)
    if watch and not as_json and moves(sys.stdout):
        _watch(client, name)
        return
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            if as_json:
                print_json(client.status() if name is None else client.services([name])[0])
            else:
                _print(printable_status(client), name, client)
            if not watch:
                return
            time.sleep(WATCH_INTERVAL_SECONDS)
            if not as_json:
                click.echo()


def _show_ray(name: str | None, address: str, *, watch: bool, as_json: bool) -> None:
    from servd.cli.ray.status import ray_status

    with contextlib.suppress(KeyboardInterrupt):
        while True:
            status = visible(ray_status(address, name))
            width = width_of(sys.stdout)
            page = Page(width, width if _is_bounded() else None, now())
            head = StyledLine.of(Span(f"Ray {status['version']}  {status['address']}", "bold"))
            if as_json:
                print_json(status)
            else:
                print_lines([head, StyledLine(), *table_lines(status["services"], page)])
            if not watch:
                return
            time.sleep(WATCH_INTERVAL_SECONDS)


def _print(status: dict[str, Any], name: str | None, client: AdminClient) -> None:
    width = width_of(sys.stdout)
    page = Page(width, width if _is_bounded() else None, now())
    if name is not None:
        client.services([name])  # raises for an unknown name
    lines = _lines(status, name, page)
    if name is None and sys.stdout.isatty() and len(lines) >= shutil.get_terminal_size().lines:
        lines += problems_again(status["services"], page)
    print_lines(lines)


def _is_bounded() -> bool:
    """Whether lines have to be wrapped: programs get each sentence in one line."""
    return sys.stdout.isatty() or "COLUMNS" in os.environ


def _lines(status: dict[str, Any], name: str | None, page: Page) -> list[StyledLine]:
    if name is None:
        return status_lines(status, page)
    services = {service["name"]: service for service in status["services"]}
    if name not in services:
        return [StyledLine.of(Span(f"{name} is not in the configuration any more", "dim"))]
    return list(detail_lines(services[name], services, page))


def _watch(client: AdminClient, name: str | None) -> None:
    """Draws until q or Ctrl-C is pressed, and leaves the last status on the terminal."""
    from servd.cli.screen.terminal import Terminal

    if name is not None:
        client.services([name])  # raises for an unknown name
    feed = StatusFeed(client, WATCH_INTERVAL_SECONDS)
    with contextlib.suppress(KeyboardInterrupt), Terminal(style_of(sys.stdout)) as terminal:
        feed.start(terminal.wake)
        while True:
            terminal.draw(_screen(feed, name, *terminal.size))
            if "q" in terminal.pressed():
                break
    width = width_of(sys.stdout)
    print_lines(_lines(feed.status, name, Page(width, width, feed.at)))


def _screen(feed: StatusFeed, name: str | None, width: int, height: int) -> list[StyledLine]:
    """Returns exactly `height` lines; the last one tells of those that have no room."""
    lines = _lines(feed.status, name, Page(width, width, feed.at))
    if feed.error:
        lines.insert(0, StyledLine.of(Span(feed.error, "bold red")).fitted(width))
    if len(lines) > height:
        more = len(lines) - height + 1
        text = f"{more} more lines; servd top scrolls"
        lines = [*lines[: height - 1], StyledLine.of(Span(text, "dim")).fitted(width)]
    return [*lines, *[StyledLine()] * (height - len(lines))]
