"""`servd` and `python -m servd`. `--version` answers before anything else is imported."""

from __future__ import annotations

import sys


def main() -> None:
    """The entry point of the command line."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        from servd._version import __version__

        print(f"servd {__version__}")
        return
    from servd.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
