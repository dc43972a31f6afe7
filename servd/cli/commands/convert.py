"""`servd convert A B`: converts a configuration between TOML, YAML and JSON."""

from __future__ import annotations

import os

import click

from servd.cli.render.output import write_new


@click.command("convert")
@click.argument("source", type=click.Path())
@click.argument("target", type=click.Path())
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def command(source: str, target: str, force: bool) -> None:
    """Convert a configuration between TOML, YAML and JSON.

    Writes SOURCE to TARGET, whose extension sets the format. SOURCE may be a folder, whose files
    are merged, or - for stdin. TARGET may be a folder or - for stdout: YAML becomes TOML, and
    other formats become YAML.

    Variables and includes are kept as written, and relative paths still lead to the same files.
    Comments are dropped.
    """
    from servd.config.convert import converted
    from servd.config.find import Format, format_of, sources_of

    sources = sources_of(source)
    other: Format = "toml" if format_of(sources[0]) == "yaml" else "yaml"
    if target != "-" and os.path.isdir(target):
        name = os.path.basename(os.path.abspath(source)) if source != "-" else "servd"
        stem = name if os.path.isdir(source) else os.path.splitext(name)[0]
        target = os.path.join(target, f"{stem}.{other}")
    form: Format = other if target == "-" else format_of(target)
    folder = "." if target == "-" else os.path.dirname(target)
    write_new(target, converted(sources, folder, form), force=force)
