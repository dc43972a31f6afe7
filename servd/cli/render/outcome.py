"""Shows the outcome of a reload."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from servd.cli.render.output import in_brief, print_json, say, say_restart_needed, workers
from servd.control.client import Answer
from servd.core.errors import Exit, ServdError


def show_outcome(answer: Answer, *, as_json: bool, unchanged: str = "") -> int:
    """Prints the outcome, or `unchanged` if there was nothing to do; returns the exit status."""
    if not (isinstance(answer.body, dict) and ("outcome" in answer.body or not answer.good)):
        raise ServdError("unexpected answer: not servd, or another version of it")
    if as_json:
        print_json(answer.body)
        return Exit.OK if answer.good else Exit.FAILED
    if answer.good:
        click.echo(_done(answer.body, unchanged))
        for line in by_hand_ends(answer.body):
            say(line)
        say_restart_needed(answer.body["restart_needed"])
        return Exit.OK
    _failed(answer.body)
    return Exit.FAILED


def by_hand_ends(body: Mapping[str, Any]) -> list[str]:
    """Returns a line for each manually set number of workers that ends now."""
    lines: list[str] = []
    for end in body.get("by_hand_ends", ()):  # missing in an older daemon
        says = f"the config says {end['file']}" if end["file"] is not None else "service removed"
        manual = f"manual setting of {workers(end['workers'])}"
        lines.append(f"! {end['service']}: {manual} ends: {says}")
    return lines


def _done(body: dict[str, Any], unchanged: str) -> str:
    if body["outcome"] == "unchanged":
        if unchanged:
            return f"unchanged: {unchanged}"
        since = f"No changes since {body['since'][:19]}Z."
        return f"{since} Code changes are not detected: run `servd restart NAME`."
    settings = [f"~ {row['key']} {row['kind']}" for row in body.get("settings", [])]
    changes = ", ".join(filter(None, [in_brief(body["changes"]), *settings]))
    return f"{body['outcome']}{_earlier(body)} in {body['seconds']:.1f} s: {changes}"


def _earlier(body: Mapping[str, Any]) -> str:
    """Says who was first if a file watch or a signal has already applied what was asked for."""
    reasons = body["why"].split(", ")
    if "the admin API" in reasons or not {"a file changed", "SIGHUP"} & {*reasons}:
        return ""
    return f" at {body['at'][:19]}Z ({body['why']})"


def _failed(body: dict[str, Any]) -> None:
    title = {"invalid": "invalid", "rolled_back": "rolled back"}.get(
        body.get("outcome", ""), body.get("title", "failed")
    )
    details = body.get("details") or [body.get("detail", "")]
    if len(details) == 1:
        say(f"{title}: {details[0]}")
    else:
        say(f"{title}:")
        for detail in details:
            say(f"  {detail}")
    for line in body.get("last_lines", ()):
        say(f"  | {line}")
    stops = body.get("detail") == "servd is stopping"
    if body.get("outcome") in ("invalid", "rolled_back") and not stops:
        say("The previous configuration is still running.")
