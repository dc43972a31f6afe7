"""`servd schema`: prints the JSON Schema of the configuration language."""

from __future__ import annotations

import click


@click.command("schema")
def command() -> None:
    """Print the JSON Schema of the configuration, for editors."""
    from servd.config.schema import schema_text

    click.echo(schema_text(), nl=False)
