"""`python -P -m servd.worker.try_import TARGET DIRECTORY FACTORY INTERFACE`: imports an app."""

from __future__ import annotations

import sys

from servd.worker.events import users_traceback
from servd.worker.load_app import AppLoadError, load_app
from servd.worker.metrics_folder import OwnMetricsFolder


def main() -> None:
    """Exits 1 with the app's own traceback when the import fails."""
    target, directory, factory, interface = sys.argv[1:5]
    sys.argv[1:] = []
    try:
        with OwnMetricsFolder():
            load_app(target, factory=factory == "factory", directory=directory, interface=interface)
    except AppLoadError as error:
        print(users_traceback(error.__cause__) if error.__cause__ else error, file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
