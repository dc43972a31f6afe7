"""`servd export dockerfile`: writes a Dockerfile."""

from __future__ import annotations

import os
import re
import sys

import click

from servd._version import __version__
from servd.cli.export_source import export_source, report, strict_option
from servd.cli.render.output import say, write_new
from servd.cli.source import config_option
from servd.core.errors import UsageError


@click.command("dockerfile")
@config_option
@click.option(
    "--python",
    default=f"{sys.version_info.major}.{sys.version_info.minor}",
    show_default="the version that runs servd",
    metavar="VERSION",
    help="Version of Python, as 3.13.",
)
@click.option("--dockerignore", is_flag=True, help="Print the .dockerignore instead.")
@click.option("--write", is_flag=True, help="Write both files to the folder of the configuration.")
@click.option("--force", is_flag=True, help="With --write: overwrite files.")
@strict_option
def command(
    config: str | None, python: str, dockerignore: bool, write: bool, force: bool, strict: bool
) -> None:
    """Write a Dockerfile of the configuration and its code.

    The packages are those of uv.lock, requirements.txt or pyproject.toml beside the configuration.
    Files that may hold secrets are in no image.
    """
    if not re.fullmatch(r"3\.\d+(\.\d+)?", python):
        raise UsageError(f"--python {python}: expected a version of Python, as 3.13")
    source = export_source(config)
    from servd.export.dockerfile import DockerfileOptions, Packages, export_dockerfile

    names: tuple[Packages, ...] = ("uv.lock", "requirements.txt", "pyproject.toml")
    there = [name for name in names if os.path.exists(os.path.join(source.folder, name))]
    packages: Packages = there[0] if there else ""
    exported = export_dockerfile(source, DockerfileOptions(python, __version__, packages))
    report(source, exported.diagnostics, strict=strict)
    if write:
        write_new(os.path.join(source.folder, "Dockerfile"), exported.text, force=force)
        write_new(os.path.join(source.folder, ".dockerignore"), exported.ignore, force=force)
    else:
        click.echo(exported.ignore if dockerignore else exported.text, nl=False)
        if not dockerignore:
            say("# with `servd export dockerfile --dockerignore > .dockerignore`, less is sent")
    if exported.left_out:
        say(f"# not in the image, mount them below /app: {', '.join(exported.left_out)}")
    if not packages:
        say("# no uv.lock, requirements.txt or pyproject.toml here: the image has servd alone")
