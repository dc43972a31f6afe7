"""`servd graph`: shows the dependency graph."""

from __future__ import annotations

import os

import click

from servd.cli.render.output import print_json, say
from servd.cli.source import config_option, load_whole


@click.command("graph")
@config_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "mermaid", "dot"]),
    default="text",
    show_default=True,
    metavar="FORMAT",
    help="text (a tree), mermaid or dot (Graphviz).",
)
@click.option("--json", "as_json", is_flag=True, help="Print the graph as JSON.")
def command(config: str | None, form: str, as_json: bool) -> None:
    """Show the dependency graph of the services."""
    loaded = load_whole(config)
    from servd.core import diagnostics
    from servd.host.facts import inspect_host
    from servd.plan import render
    from servd.plan.build import build_loaded

    for warning in loaded.warnings:
        say(diagnostics.render(warning, loaded.texts))
    plan = build_loaded(loaded, inspect_host(loaded.config, os.environ), "")
    if as_json:
        print_json(render.as_json(plan))
        return
    draw = {"text": render.as_text, "mermaid": render.as_mermaid, "dot": render.as_dot}[form]
    click.echo(draw(plan))
