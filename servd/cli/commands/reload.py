"""`servd reload`: applies the configuration file."""

from __future__ import annotations

import re

import click

from servd.cli.act import ActOptions, act, act_options
from servd.cli.saved_plan import SavedPlan, read
from servd.core.errors import UsageError


@click.command("reload")
@click.argument("plan", metavar="[PLAN]", required=False)
@act_options
@click.option("--roll", is_flag=True, help="Replace every service, though it did not change.")
@click.option(
    "--expect",
    metavar="ETAG",
    help="Do nothing if another state runs by now, or another plan would result.",
)
def command(options: ActOptions, plan: str | None, roll: bool, expect: str | None) -> int:
    """Read the configuration and apply what differs; wait until it is done, or undone. With PLAN (a
    file of `servd plan -o`), only if the files and what runs are still as they were then.
    """
    if plan is not None and (roll or expect is not None):
        raise UsageError("a saved plan says what to expect, and whether to --roll")
    if expect is not None and not re.fullmatch('"?[!#-~]+"?', expect):
        raise UsageError("--expect wants an ETag: `servd plan --json` tells it")
    seen = SavedPlan((expect or "").strip('"'), roll) if plan is None else read(plan)
    return act(options, "/v1/reload", roll=seen.roll, expect=seen.etag)
