"""`servd top`: shows services and workers live."""

from __future__ import annotations

import contextlib
import sys

import click

from servd.cli.admin_options import admin_client, admin_options
from servd.cli.render.output import moves, print_lines, style_of, width_of


@click.command("top")
@admin_options
@click.option(
    "--interval",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0.1, 60),
    help="Seconds between two updates.",
)
@click.option("--once", is_flag=True, help="Print once and exit.")
def command(config: str | None, admin: str | None, interval: float, once: bool) -> None:
    """Show services and workers live: requests, errors, CPU, memory.

    Press ? for the keys, q to quit. Without a terminal, it prints once and exits.
    """
    client = admin_client(config, admin)
    from servd.cli.screen.feed import StatusFeed, now, printable_status
    from servd.cli.screen.frame import Frame, Screen
    from servd.cli.screen.terminal import Terminal
    from servd.cli.screen.view import TopView

    if once or not moves(sys.stdout):
        screen = Screen(width_of(sys.stdout), None, now())
        print_lines(Frame(printable_status(client), TopView(), screen).lines)
        return
    feed, view = StatusFeed(client, interval), TopView()
    with contextlib.suppress(KeyboardInterrupt), Terminal(style_of(sys.stdout)) as terminal:
        feed.start(terminal.wake)
        while True:
            screen = Screen(*terminal.size, feed.at)
            frame = Frame(feed.status, view, screen, feed.error)
            view = frame.view
            terminal.draw(frame.lines)
            for key in terminal.pressed():
                if key in ("q", "f10") and not (view.is_typing or view.shows_help):
                    return
                if key == "ctrl-l":
                    terminal.redraw()
                view = frame.after(key)
                frame = Frame(feed.status, view, screen, feed.error)
                view = frame.view
