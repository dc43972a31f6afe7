"""`servd convert A B`: converts a configuration between TOML and YAML."""

from __future__ import annotations

import click

from servd.cli.render.output import write_new
from servd.core.errors import ConfigError


@click.command("convert")
@click.argument("source", type=click.Path())
@click.argument("target", type=click.Path())
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
def command(source: str, target: str, force: bool) -> None:
    """Write the configuration SOURCE to TARGET in the format that TARGET's name says.

    Variables and includes stay as they are written; comments are not carried over. TARGET - is
    stdout, in the other format.
    """
    from servd.config.dump import to_text
    from servd.config.find import Disk, Source, config_error, is_yaml
    from servd.config.load import parse_source
    from servd.config.tree import plain

    try:
        content = Disk().read(source)
    except OSError as error:
        raise config_error(f"cannot be read: {error.strerror}", file=source) from None
    parsed = parse_source(Source(source, content), {})
    if parsed.diagnostics:
        raise ConfigError(parsed.diagnostics)
    yaml = is_yaml(target) if target != "-" else not is_yaml(source)
    try:
        text = to_text(plain(parsed.root), "yaml" if yaml else "toml")
    except ValueError as error:
        raise config_error(str(error), file=source) from None
    write_new(target, text, force=force)
