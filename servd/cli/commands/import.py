"""`servd import FILE`: converts the configuration of another tool."""

from __future__ import annotations

import click

from servd.cli.render.output import say, write_new
from servd.core.errors import ServdError


@click.command("import")
@click.argument("file", type=click.Path())
@click.argument("target", default="-", type=click.Path())
@click.option(
    "--from",
    "kind",
    metavar="FORMAT",
    help="Format of FILE.  [default: detected from its name and content]",
)
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def command(file: str, target: str, kind: str | None, force: bool) -> None:
    """Convert the configuration of another tool to servd.

    Reads FILE and writes a TOML configuration to TARGET (default: stdout). FILE is a
    supervisord.conf, Procfile, gunicorn.conf.py, circus.ini, systemd unit, PM2 ecosystem file,
    docker-compose.yml or process-compose.yaml. Settings without a counterpart become comments.
    """
    from servd.core.errors import UsageError
    from servd.importers.formats import KINDS, as_toml, kind_of, read
    from servd.importers.model import ImportFailed

    if kind is not None and kind not in KINDS:
        raise UsageError(f"--from {kind}: expected one of {', '.join(KINDS)}")
    try:
        with open(file, encoding="utf-8", errors="replace") as opened:
            text = opened.read()
        found = read(kind or kind_of(file, text), file, text)
    except OSError as error:
        raise ServdError(f"cannot read {file}: {error.strerror}") from None
    except ImportFailed as error:
        raise ServdError(f"{file}: {error}") from None
    if not found.services:
        raise ServdError(f"{file}: contains no service that servd can run")
    write_new(target, as_toml(found, file), force=force)
    if count := len(found.left) + sum(len(service.left) for service in found.services):
        say(f"{count} setting{'' if count == 1 else 's'} not imported: see the comments")
