"""Starts templates; the first one in the first milliseconds of the daemon, beside its imports."""

from __future__ import annotations

import atexit
import os
import site
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from servd.supervisor.templates.forked import Child
from servd.wire.names import AREA, AREA_BYTES

MODULE = "servd.worker.template"
ARGV = (sys.executable, "-P", "-m", MODULE)

_AT_START = frozenset({"GLIBC_TUNABLES", "LANG", "LANGUAGE"})
_AT_START_PREFIXES = ("PYTHON", "LD_", "MALLOC_", "LC_")
"""Variables that an interpreter and its libraries read when they start, and never again."""

_INHERITED = frozenset({"LANG", "HOME"})
_INHERITED_PREFIXES = ("LC_",)
"""Those that every worker inherits from the daemon (`servd.plan.environment.BASE`)."""


class StartedTemplate(NamedTuple):
    """The process of a template, and the daemon's end of its socket."""

    process: Child
    socket: socket.socket


_early: tuple[StartedTemplate, Mapping[str, str]] | None = None


def variables_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables that a fork cannot change any more: those of a worker have to be those
    of its template. HOME is one of them where it has packages for Python.
    """
    names = _AT_START | {"HOME"} if site.ENABLE_USER_SITE else _AT_START
    return {
        name: value
        for name, value in environment.items()
        if name in names or name.startswith(_AT_START_PREFIXES)
    }


def start(
    argv: Sequence[str],
    environment: Mapping[str, str],
    *,
    stdout: int = subprocess.DEVNULL,
    stderr: int = subprocess.DEVNULL,
    directory: str = "/",
    **identity: Any,
) -> StartedTemplate:
    """Starts a template with the interpreter of `argv`. Raises OSError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        process = subprocess.Popen(
            [*argv, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            pass_fds=[theirs.fileno()],
            cwd=directory,
            env={**environment, AREA: "." * AREA_BYTES},
            start_new_session=True,
            **identity,
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return StartedTemplate(process, ours)


def start_early(*, inherits_all: bool) -> None:
    """Starts the template of this interpreter before anything is known of the services: most have
    the variables that every worker inherits, or (`servd serve`) all of the daemon's.
    """
    global _early
    if sys.platform != "linux":
        return
    environment = {
        name: value
        for name, value in variables_at_start(os.environ).items()
        if inherits_all or name in _INHERITED or name.startswith(_INHERITED_PREFIXES)
    }
    try:
        _early = start(ARGV, environment), environment
    except OSError:
        return  # workers are started without it
    atexit.register(_end_unused)


def _end_unused() -> None:
    if _early is not None:
        _early[0].process.kill()


def early_for(argv: Sequence[str], environment: Mapping[str, str]) -> StartedTemplate | None:
    """Returns the template that `start_early` has started, if processes of this command line and
    environment can be forked from it.
    """
    if _early is None or tuple(argv) != ARGV:
        return None
    started, variables = _early
    return started if variables_at_start(environment) == variables_at_start(variables) else None


def take_early() -> tuple[StartedTemplate, Mapping[str, str]] | None:
    """Returns the template that `start_early` has started, with its variables, once."""
    global _early
    found, _early = _early, None
    return found
