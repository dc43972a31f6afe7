"""The command line: a group whose commands are imported when they run."""

from __future__ import annotations

import contextlib
import difflib
import errno
import importlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

import click

from servd._version import __version__
from servd.cli.source import config_option
from servd.core.errors import Exit, ServdError

COMMANDS = (
    "check", "completion", "convert", "dashboard", "deploy", "dev", "doctor", "events", "export",
    "gpus", "graph", "import", "init", "list", "logs", "plan", "reload", "restart", "run", "scale",
    "schema", "serve", "show", "shutdown", "start", "status", "stop", "top", "upgrade",
)  # fmt: skip


_ALIASES = {"serve-http": "serve"}
"""Names that other tools have for commands; help does not list them."""

_ELSEWHERE = {
    "serve-grpc": "servd serves HTTP. Run gRPC as a program:"
    ' command = ["bentoml", "serve-grpc", "service:svc", "--port", "{port}"]',
}
"""Commands of other tools that servd does not have, and what to do instead."""

_NO_CIRCUS = (
    "servd: files of the package circus are missing. Uninstalling kantoku, BentoML's fork with the"
    f" same file names, removes them. Reinstall: {sys.executable} -m pip install"
    " --force-reinstall --no-deps circus"
)


_OUTPUT_ERRORS = {errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EDQUOT}


class OutputClosedError(Exception):
    """Nobody reads the output any more. Click would exit with 1 on the OSError itself."""


@contextlib.contextmanager
def _closed_output() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        if error.filename is not None:
            raise
        raise OutputClosedError from None


class LazyGroup(click.Group):
    """Loads the command NAME: `command` in the module `servd.cli.commands.NAME`."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Parses the arguments; may print the help. Raises `OutputClosedError`."""
        with _closed_output():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command. Raises `OutputClosedError`."""
        with _closed_output():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns all names, sorted."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports the command."""
        cmd_name = _ALIASES.get(cmd_name, cmd_name)
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = importlib.import_module(f"servd.cli.commands.{cmd_name}").command
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggests the closest name for an unknown command."""
        if args and self.get_command(ctx, args[0]) is None:
            if args[0] in _ELSEWHERE:
                ctx.fail(_ELSEWHERE[args[0]])
            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f' Did you mean "{close[0]}"?' if close else ""
            ctx.fail(f'unknown command "{args[0]}".{hint}')
        return super().resolve_command(ctx, args)


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@config_option
@click.version_option(__version__, "-V", "--version", message="servd %(version)s")
@click.pass_context
def servd(ctx: click.Context, config: str | None) -> None:
    """Run services from one configuration file, and keep them running.

    Without a command, servd runs the configuration in the foreground.
    """
    ctx.obj = config
    if ctx.invoked_subcommand is None:
        from servd.cli.commands.run import run_config

        ctx.exit(run_config(config))


def main() -> None:
    """Runs the command line; expected errors are shown as messages, without a traceback."""
    try:
        status = _run()
        sys.stdout.flush()
    except (OutputClosedError, BrokenPipeError):
        _end_silently()
    except OSError as error:
        if error.filename is not None or error.errno not in _OUTPUT_ERRORS:
            raise
        _end_without_output(error)
    sys.exit(status)


def _run() -> int:
    """Runs the command line and returns the exit status."""
    try:
        status = servd.main(prog_name="servd", standalone_mode=False)
        return status if isinstance(status, int) else Exit.OK
    except click.exceptions.Abort:
        return 130
    except click.ClickException as error:
        error.show()
        return Exit.USAGE if isinstance(error, click.UsageError) else Exit.FAILED
    except ServdError as error:
        from servd.cli.render.output import show_error

        show_error(error)
        return error.exit_status
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "circus":
            raise
        click.echo(_NO_CIRCUS, err=True)
        return Exit.FAILED


def _end_silently() -> NoReturn:
    """Exits as SIGPIPE would end us: nobody reads the output any more."""
    _drop_output(1, 2)
    sys.exit(128 + signal.SIGPIPE)


def _drop_output(*descriptors: int) -> None:
    """Python writes what it holds at its end: nowhere."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in descriptors:
            os.dup2(nowhere, descriptor)


def _end_without_output(error: OSError) -> NoReturn:
    """Exits when the output has no room."""
    _drop_output(1)
    with contextlib.suppress(OSError):
        click.echo(f"servd: cannot write the output: {error.strerror}", err=True)
    sys.exit(Exit.FAILED)
