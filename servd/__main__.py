"""`servd` and `python -m servd`. `--version` answers before anything else is imported."""

from __future__ import annotations

import contextlib
import os
import sys


def main() -> None:
    """The entry point of the command line."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        from servd._version import __version__

        with contextlib.suppress(OSError):  # the command line says what is wrong with the output
            print(f"servd {__version__}", flush=True)
            return
    open_missing_stdio()
    leave_missing_folder()
    command = command_of(sys.argv[1:])
    if command in ("run", "serve"):
        from servd.supervisor.templates.start import start_early

        start_early(inherits_all=command == "serve")
        from servd.core.lean_stdlib import import_without_openssl

        import_without_openssl()
    from servd.core import gc_tuning

    gc_tuning.seldom()
    from servd.cli.main import main as run

    run()


def command_of(arguments: list[str]) -> str:
    """Returns the command among `arguments`, as far as it decides whether a daemon starts."""
    words = iter(arguments)
    for word in words:
        if word in ("--config", "-c"):
            next(words, None)
        elif word in ("--help", "-h"):
            return "help"
        elif not word.startswith("-"):
            return word
    return "run"


def open_missing_stdio() -> None:
    """Opens /dev/null where stdin, stdout or stderr are closed: a socket of ours would get their
    descriptor otherwise, and be written to.
    """
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free: this one
            os.set_inheritable(descriptor, True)
            setattr(sys, name, os.fdopen(descriptor, mode))


def leave_missing_folder() -> None:
    """Goes to / when the working directory has been removed: every relative path would fail."""
    try:
        os.getcwd()
    except FileNotFoundError:
        os.chdir("/")


if __name__ == "__main__":
    main()
