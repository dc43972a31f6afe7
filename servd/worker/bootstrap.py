"""`python bootstrap.py MODULE FD ...`: runs a module of the worker in an interpreter of another
environment (a service's `python`), which need not have servd: uvicorn is enough.

Nothing but the package servd is added to what that interpreter can import: the libraries beside it
are the environment's own, in its own versions. Any Python 3 can read this file, to say what is
wrong with it.
"""

import os
import sys

LEAST = (3, 11)
FAILED = 3
_HERE = os.path.dirname(os.path.abspath(__file__))
_ROOT = os.path.dirname(_HERE)


def why_not() -> str:
    """Why this interpreter cannot run a worker; empty where it can."""
    import importlib.util

    if sys.version_info < LEAST:
        found = ".".join(map(str, sys.version_info[:2]))
        return f"{sys.executable} is Python {found}: 3.11 or newer is needed"
    if importlib.util.find_spec("uvicorn") is None:
        return f"{sys.executable} has no uvicorn: {sys.executable} -m pip install uvicorn"
    return ""


class ServdFinder:
    """Finds the package servd where this file is, whatever else has that name."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> object:
        """As importlib.abc.MetaPathFinder has it."""
        if name != "servd":
            return None
        from importlib.util import spec_from_file_location

        init = os.path.join(_ROOT, "__init__.py")
        return spec_from_file_location(name, init, submodule_search_locations=[_ROOT])


def main() -> None:
    """Becomes the module."""
    import runpy

    if sys.path[:1] == [_HERE]:  # what `python -P` leaves out, which older ones do not know
        del sys.path[0]
    module = sys.argv.pop(1)
    reason = why_not()
    if reason:
        print(reason, file=sys.stderr)
        sys.exit(FAILED)
    sys.meta_path.insert(0, ServdFinder)  # type: ignore[arg-type]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
