"""Options that the commands for Ray Serve share."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click

_URI = re.compile(r"[a-z][a-z0-9+.-]*://.+")

DASHBOARD = "http://127.0.0.1:8265"


def _uri(context: click.Context, option: click.Parameter, value: str) -> str:
    if value and not _URI.fullmatch(value):
        raise click.BadParameter("expected a URI, such as s3://bucket/code.zip or local:///app")
    return value


def working_dir_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--working-dir`."""
    return click.option(
        "--working-dir",
        default="",
        metavar="URI",
        callback=_uri,
        help="Where nodes find the code: s3://, gs://, https:// with a zip file, or local:///FOLDER"
        " that every node has.",
    )(command)


def cpus_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--cpus`."""
    return click.option(
        "--cpus",
        type=click.FloatRange(min=0),
        default=1.0,
        show_default=True,
        metavar="NUMBER",
        help="CPUs that Ray reserves for each replica.",
    )(command)


def address_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--address`."""
    return click.option(
        "--address",
        default=DASHBOARD,
        show_default=True,
        envvar="RAY_DASHBOARD_ADDRESS",
        metavar="URL",
        help="Dashboard of the cluster, with --engine ray.",
    )(command)


def duration(context: click.Context, option: click.Parameter, value: str) -> float:
    """Reads a duration, as a configuration spells it."""
    from pydantic_core import PydanticCustomError

    from servd.config.scalars import parse_duration

    try:
        return parse_duration(value)
    except PydanticCustomError as error:
        raise click.BadParameter(str(error)) from None
