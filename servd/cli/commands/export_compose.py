"""`servd export compose`: writes a Compose file."""

from __future__ import annotations

import os

import click

from servd.cli.export_source import export_source, report, strict_option, write_files
from servd.cli.render.output import say
from servd.cli.source import config_option


@click.command("compose")
@config_option
@click.option("--image", required=True, metavar="IMAGE", help="Image with servd and the code.")
@click.option(
    "--whole", is_flag=True, help="One container with all services, instead of one for each."
)
@click.option(
    "--output",
    type=click.Path(file_okay=False),
    metavar="FOLDER",
    help="Write compose.yaml there, with a servd-NAME.toml for each container and a read-only root,"
    " instead of one file on stdout.",
)
@strict_option
def command(config: str | None, image: str, whole: bool, output: str | None, strict: bool) -> None:
    """Write a Compose file of the configuration.

    What became of each dependency, and what is not carried over, is listed on stderr.
    """
    source = export_source(config)
    from servd.export.compose.export import export_compose
    from servd.export.compose.options import ComposeOptions
    from servd.export.containers.names import label
    from servd.export.containers.yaml_text import yaml_text

    name = label(os.path.basename(source.folder))
    folder = os.path.abspath(output) if output is not None else source.folder
    options = ComposeOptions(image, folder, name, whole, files=output is not None)
    exported = export_compose(source, options)
    report(source, exported.diagnostics, strict=strict)
    text = yaml_text([exported.content])
    if output is None:
        click.echo(text, nl=False)
    else:
        write_files(output, {"compose.yaml": text, **exported.configs})
    for wait in exported.waits:
        say(str(wait))
    for each in exported.variables:
        given = each.given if each.file else "..."
        say(f"# set before `docker compose up`: export {each.variable}={given}")
    if output is None:
        say(
            "# the root of the containers can be written: --output FOLDER makes it read-only, with"
            " files of configuration (Compose takes no other in a read-only container)"
        )
