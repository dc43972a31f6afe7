"""`servd show`: prints the effective configuration, with secrets masked."""

from __future__ import annotations

import click

from servd.cli.render.output import print_json
from servd.cli.source import config_option, load_config


@click.command("show")
@config_option
@click.option("--all", "everything", is_flag=True, help="Keys that have their default too.")
@click.option("--yaml", "as_yaml", is_flag=True, help="YAML instead of TOML.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of TOML.")
def command(config: str | None, everything: bool, as_yaml: bool, as_json: bool) -> None:
    """Print the configuration as it is used: includes, defaults and variables resolved."""
    loaded = load_config(config).require()
    from servd.config.dump import escaped, to_text
    from servd.config.effective import effective

    values = effective(loaded, everything=everything)
    if as_json:
        print_json(values)
    else:
        click.echo(to_text(escaped(values), "yaml" if as_yaml else "toml"), nl=False)
