"""`servd import FILE`: writes a servd file from the file of another tool."""

from __future__ import annotations

import click

from servd.cli.render.output import say, write_new
from servd.core.errors import ServdError


@click.command("import")
@click.argument("file", type=click.Path())
@click.argument("target", default="-", type=click.Path())
@click.option("--from", "kind", help="The format, where the name of FILE does not tell it.")
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
def command(file: str, target: str, kind: str | None, force: bool) -> None:
    """Write the services of FILE to TARGET (standard output) as a servd file in TOML.

    FILE is a supervisord.conf, Procfile, gunicorn.conf.py, circus.ini, systemd unit, ecosystem file
    of PM2, docker-compose.yml or process-compose.yaml. What has no counterpart stands in comments.
    """
    from servd.core.errors import UsageError
    from servd.importers.formats import KINDS, as_toml, kind_of, read
    from servd.importers.model import ImportFailed

    if kind is not None and kind not in KINDS:
        raise UsageError(f"--from {kind}: write one of {', '.join(KINDS)}")
    try:
        with open(file, encoding="utf-8", errors="replace") as opened:
            text = opened.read()
        found = read(kind or kind_of(file, text), file, text)
    except OSError as error:
        raise ServdError(f"cannot read {file}: {error.strerror}") from None
    except ImportFailed as error:
        raise ServdError(f"{file}: {error}") from None
    if not found.services:
        raise ServdError(f"{file}: there is no service in it that servd could run")
    write_new(target, as_toml(found, file), force=force)
    if count := len(found.left) + sum(len(service.left) for service in found.services):
        say(f"{count} {'line was' if count == 1 else 'lines were'} not imported: see the comments")
