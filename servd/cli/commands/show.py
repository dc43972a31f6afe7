"""`servd show [NAME]`: prints the effective configuration, with secrets masked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from servd.cli.commands.completion import service_names
from servd.cli.render.output import write_new
from servd.cli.source import config_option, load_config

if TYPE_CHECKING:
    from servd.config.find import Format


@click.command("show")
@click.argument("name", required=False, metavar="[NAME]", shell_complete=service_names)
@config_option
@click.option("--all", "everything", is_flag=True, help="Also print keys that have their default.")
@click.option("--toml", "form", flag_value="toml", help="Print TOML.")
@click.option("--yaml", "form", flag_value="yaml", help="Print YAML.")
@click.option("--json", "form", flag_value="json", help="Print JSON.")
@click.option(
    "-o", "--output", metavar="FILE", help="Write to a new file in the format of its extension."
)
def command(
    name: str | None,
    config: str | None,
    everything: bool,
    form: Format | None,
    output: str | None,
) -> None:
    """Print the effective configuration, secrets masked.

    With NAME, only the configuration of that service.

    Includes, defaults and variables are resolved. The format is that of FILE, else that of the
    configuration.
    """
    loaded = load_config(config).require()
    from servd.config.dump import escaped, to_text
    from servd.config.effective import effective, of_service
    from servd.config.find import format_of

    chosen: Format = form or format_of(output if output is not None else loaded.files[0])
    values = effective(loaded, everything=everything)
    if name is not None:
        values = of_service(values, name)
    text = to_text(values if form == "json" and output is None else escaped(values), chosen)
    write_new(output or "-", text, force=False)
