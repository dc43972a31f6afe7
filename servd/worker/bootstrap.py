"""`python bootstrap.py MODULE FD ...`: runs a worker module in the interpreter of another
environment (a service's `python`), which needs uvicorn: only servd is added to what it can import.
This file stays readable for any Python 3, to report the mismatch.
"""

import os
import sys

MIN_VERSION = (3, 11)
STARTUP_FAILURE = 3
_HERE = os.path.dirname(os.path.abspath(__file__))
_ROOT = os.path.dirname(_HERE)


def unusable_reason() -> str:
    """Returns why this interpreter cannot run a worker, or an empty string."""
    import importlib.util

    if sys.version_info < MIN_VERSION:
        found = ".".join(map(str, sys.version_info[:2]))
        return f"{sys.executable} is Python {found}; servd requires 3.11 or newer"
    if importlib.util.find_spec("uvicorn") is None:
        return f"{sys.executable} has no uvicorn: run {sys.executable} -m pip install uvicorn"
    return ""


class ServdFinder:
    """Finds the package servd in this file's folder, before any other package of that name."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> object:
        """Implements importlib.abc.MetaPathFinder."""
        if name != "servd":
            return None
        from importlib.util import spec_from_file_location

        init = os.path.join(_ROOT, "__init__.py")
        return spec_from_file_location(name, init, submodule_search_locations=[_ROOT])


def main() -> None:
    """Runs the given module as __main__ (runpy)."""
    import runpy

    if sys.path[:1] == [_HERE]:  # as `python -P` does, which older versions do not know
        del sys.path[0]
    module = sys.argv.pop(1)
    reason = unusable_reason()
    if reason:
        print(reason, file=sys.stderr)
        sys.exit(STARTUP_FAILURE)
    sys.meta_path.insert(0, ServdFinder)  # type: ignore[arg-type]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
