"""`servd deploy`: applies the configuration to an engine."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from servd.cli.export_source import export_source, report, strict_option
from servd.cli.ray.options import address_option, cpus_option, duration, working_dir_option
from servd.cli.render.output import colours, say
from servd.cli.source import config_option
from servd.core.errors import Exit

if TYPE_CHECKING:
    from servd.cli.ray.applications import RunningApplication
    from servd.cli.ray.deployment import Deployment
    from servd.export.containers.options import ExportSource


@click.command("deploy")
@config_option
@click.option("--engine", type=click.Choice(["ray"]), required=True, help="Engine: ray.")
@address_option
@click.option(
    "--wait",
    default="5m",
    show_default=True,
    metavar="DURATION",
    callback=duration,
    help="How long applications may take until they run.",
)
@click.option("--no-rollback", is_flag=True, help="Leave a failed deployment as it is.")
@working_dir_option
@cpus_option
@strict_option
def command(
    config: str | None,
    engine: str,
    address: str,
    wait: float,
    no_rollback: bool,
    working_dir: str,
    cpus: float,
    strict: bool,
) -> int:
    """Apply the configuration to a running cluster of Ray Serve.

    Shows what changes, applies it in the order of the dependencies, and puts the last configuration
    back if an application fails. Without --working-dir, the code is uploaded.
    """
    source = export_source(config)
    from servd.cli.ray.applications import changes_of, running_applications
    from servd.cli.ray.dashboard import Dashboard, DashboardError, token_of
    from servd.cli.ray.deployment import DeployFailedError, Deployment
    from servd.cli.ray.http_options import check_http_options
    from servd.cli.ray.package import package_of
    from servd.export.ray.document import export
    from servd.export.ray.options import RayOptions
    from servd.plan.render_changes import rows_as_text

    package = package_of(source)
    exported = export(source, RayOptions(working_dir or package.uri, package.digest, cpus))
    report(source, exported.diagnostics, strict=strict)
    dashboard = Dashboard(address, token_of(os.environ))
    dashboard.require_version()
    details = dashboard.details()
    for line in check_http_options(exported.document, details):
        say(line)
    before = running_applications(details)
    ours = {name: each.config for name, each in before.items() if each.config and each.is_ours}
    wanted = exported.applications
    rows = changes_of(ours, wanted)
    if not rows:
        click.echo("No changes.")
        return _failed_before(wanted, before)
    click.echo(rows_as_text(rows, colour=colours(sys.stdout)))
    if not working_dir and not dashboard.has_package(package.name):
        dashboard.upload(package.name, package.content())
    deployment = Deployment(
        dashboard,
        {key: value for key, value in exported.document.items() if key != "applications"},
        patience=wait,
        tell=click.echo,
        clock=time.monotonic,
        pause=time.sleep,
    )
    changed = [row["service"] for row in rows if row["sign"] != "-"]
    try:
        deployment.apply(before, wanted, _needs(source), changed)
    except (DeployFailedError, DashboardError) as error:
        say(f"servd: {error}")
        if not no_rollback:
            _put_back(deployment, before)
        return Exit.FAILED
    click.echo("deployed")
    return Exit.OK


def _needs(source: ExportSource) -> dict[str, list[str]]:
    return source.plan.graph


def _put_back(deployment: Deployment, before: dict[str, RunningApplication]) -> None:
    from servd.cli.ray.dashboard import DashboardError
    from servd.cli.ray.deployment import DeployFailedError

    kept = any(each.config is not None for each in before.values())
    say("putting the last configuration back" if kept else "removing what was deployed")
    try:
        deployment.put_back(before)
    except (DeployFailedError, DashboardError) as error:
        say(f"servd: the last configuration does not run either: {error}")
    else:
        say("The previous configuration is still running." if kept else "Nothing is deployed.")


def _failed_before(wanted: dict[str, Any], before: dict[str, RunningApplication]) -> int:
    """Says what does not run with this very configuration: Ray does not try again."""
    from servd.cli.ray.deployment import last_lines

    failed = [before[name] for name in wanted if before[name].status == "DEPLOY_FAILED"]
    for each in failed:
        say(f"servd: {each.name} has failed before, and Ray does not try the same again:")
        say(last_lines(each.message))
    return Exit.FAILED if failed else Exit.OK
