"""`servd reload`: applies the configuration."""

from __future__ import annotations

import re

import click

from servd.cli.act import ActOptions, act, act_options, now_option, only_if
from servd.cli.saved_plan import SavedPlan, read
from servd.core.errors import UsageError


@click.command("reload")
@click.argument("plan", metavar="[PLAN]", required=False)
@act_options
@now_option
@click.option("--roll", is_flag=True, help="Replace every service, even if unchanged.")
@click.option(
    "--expect",
    metavar="ETAG",
    help="Apply only if this plan (ETag of `servd plan --json`) is still current.",
)
def command(
    options: ActOptions, plan: str | None, roll: bool, expect: str | None, now: bool
) -> int:
    """Apply the configuration to the running daemon.

    Waits until the changes are applied or rolled back. With PLAN (a file of `servd plan -o`),
    applies that plan only if the configuration and the running state have not changed since.
    """
    if plan is not None and (roll or expect is not None):
        raise UsageError("--roll and --expect cannot be combined with a saved plan")
    if expect is not None and not re.fullmatch('"?[!#-~]+"?', expect):
        raise UsageError("--expect must be an ETag (see `servd plan --json`)")
    seen = SavedPlan((expect or "").strip('"'), roll) if plan is None else read(plan)
    return act(options, "/v1/reload", roll=seen.roll, expect=seen.etag, **only_if(now=now))
