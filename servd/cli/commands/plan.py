"""`servd plan`: shows what a reload would do now."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from servd.cli.admin_options import admin_client, admin_options
from servd.cli.capacity_options import CapacityQuestion, capacity_options
from servd.cli.render.outcome import by_hand_ends
from servd.cli.render.output import colours, print_json, say, say_restart_needed, workers
from servd.cli.saved_plan import save
from servd.cli.source import load_whole
from servd.control.client import NoDaemonError
from servd.core.errors import Exit, ServdError, UsageError

if TYPE_CHECKING:
    from servd.config.load import Loaded

CHANGES = 2


@click.command("plan")
@admin_options
@click.option("--roll", is_flag=True, help="Plan a reload that replaces every service.")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="Save the plan; `servd reload FILE` applies exactly this plan.",
)
@capacity_options
@click.option("--json", "as_json", is_flag=True, help="Print the changes as JSON.")
@click.option(
    "--detailed-exitcode", is_flag=True, help="Exit 0 without changes, 2 with changes, 1 on errors."
)
def command(
    config: str | None,
    admin: str | None,
    roll: bool,
    output: str | None,
    question: CapacityQuestion | None,
    as_json: bool,
    detailed_exitcode: bool,
) -> int:
    """Show what a reload would change.

    Without a running daemon, shows what a first start would do.

    With --capacity, shows instead how many workers and CPUs each service needs for a load, from
    what its requests have needed so far.
    """
    if question is not None:
        if roll or output is not None or detailed_exitcode:
            raise UsageError("--capacity goes with --json only: it plans no reload")
        from servd.cli.capacity import show_capacity

        show_capacity(config, admin, question, as_json=as_json)
        return Exit.OK
    try:
        answer = _asked(config, admin, roll)
        if output is not None:
            save(answer, output, roll=roll)
    except InvalidError as error:
        say(str(error))
        return Exit.FAILED if detailed_exitcode else Exit.CONFIG
    except ServdError as error:
        if not detailed_exitcode:
            raise
        from servd.cli.render.output import show_error

        show_error(error)
        return Exit.FAILED
    if as_json:
        print_json(answer)
    else:
        _show(answer)
    changes = answer["changes"] or answer.get("settings")
    return CHANGES if detailed_exitcode and changes else Exit.OK


def _asked(config: str | None, admin: str | None, roll: bool) -> dict[str, Any]:
    """Returns the plan of the running daemon, or else that of a first start, which may raise
    `ConfigError`. Raises `InvalidError` if the daemon finds the file invalid.
    """
    try:
        client = admin_client(config, admin)
        answer = client.get("/v1/plan?roll=true" if roll else "/v1/plan")
    except NoDaemonError:
        if admin:
            raise
        return _first_start(load_whole(config))
    body = answer.body if isinstance(answer.body, dict) else {}
    if answer.good and "changes" in body:
        return body
    if body.get("outcome") == "invalid":
        raise InvalidError("\n".join(body.get("details") or [body["title"]]))
    raise client.unexpected(answer)


class InvalidError(ServdError):
    """The daemon's file is invalid; the message has a line for every error."""


def _first_start(loaded: Loaded) -> dict[str, Any]:
    from servd.host.facts import inspect_host
    from servd.host.gpus import equip_at_start
    from servd.plan.build import build_loaded
    from servd.plan.diff import diff
    from servd.plan.model import Plan
    from servd.plan.render_changes import change_rows

    plan = build_loaded(loaded, inspect_host(loaded.config, os.environ), "")
    plan, found = equip_at_start(loaded, plan, os.environ)
    return {
        "source": "first start",
        "changes": change_rows(diff(Plan(), plan)),
        "settings": [],
        "by_hand": [],
        "by_hand_ends": [],
        "restart_needed": [],
        "warnings": [warning.summary() for warning in (*loaded.warnings, *found)],
    }


def _show(answer: dict[str, Any]) -> None:
    from servd.plan.render_changes import rows_as_text

    if answer["source"] != "daemon":
        say("servd is not running for this configuration: this is what a first start would do")
    settings = answer.get("settings", [])  # missing in an older daemon
    click.echo(rows_as_text(answer["changes"], settings, colour=colours(sys.stdout)))
    for item in answer["by_hand"]:
        click.echo(
            f"! {item['service']}: {workers(item['workers'])} (set manually; the config says"
            f" {item['file']}), kept until the config changes it"
        )
    for line in by_hand_ends(answer):
        click.echo(line)
    for warning in answer["warnings"]:
        say(warning)
    say_restart_needed(answer["restart_needed"])
