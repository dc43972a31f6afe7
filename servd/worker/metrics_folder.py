"""A folder for the metrics of a process that imports an app but does not serve it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator

from servd.wire.names import PROMETHEUS_FOLDER

_own: list[tempfile.TemporaryDirectory[str]] = []


@contextlib.contextmanager
def own_metrics_folder() -> Iterator[Callable[[], bool]]:
    """Gives this process a folder of its own for the metrics that an import makes, which are files
    from their first moment on where workers share them (prometheus_client). It is removed; without
    one, the metrics stay in memory. Yields what tells whether there are any.
    """
    if os.environ.pop(PROMETHEUS_FOLDER, None) is None:
        yield lambda: False
        return
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            folder = tempfile.TemporaryDirectory(prefix="servd-", ignore_cleanup_errors=True)
            os.environ[PROMETHEUS_FOLDER] = stack.enter_context(folder)
            _own.append(folder)
        yield lambda: any(os.listdir(each.name) for each in _own)


def remove_own_metrics_folder() -> None:
    """Removes it at the end of a process that ends in the middle of an import."""
    for folder in _own:
        folder.cleanup()
