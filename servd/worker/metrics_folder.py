"""A folder for the metrics of a process that imports an app but does not serve it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from types import TracebackType

from servd.wire.names import PROMETHEUS_FOLDER


class OwnMetricsFolder:
    """Gives this process a folder of its own for the metrics that an import makes, which are files
    from their first moment on where workers share them (prometheus_client). Without one, they stay
    in memory. It is made `near` a folder that may come later, on the same file system if possible:
    `move_to` can move the files there. The end of the block removes it.
    """

    def __init__(self, near: str = "") -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.is_missing = os.environ.pop(PROMETHEUS_FOLDER, None) is not None
        """Whether there should be one, and cannot be."""
        if not self.is_missing:
            return
        with contextlib.suppress(OSError):
            self._folder = tempfile.TemporaryDirectory(
                prefix="servd-", dir=_nearest(near), ignore_cleanup_errors=True
            )
            os.environ[PROMETHEUS_FOLDER] = self._folder.name
            self.is_missing = False

    def __enter__(self) -> OwnMetricsFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()

    def move_to(self, folder: str) -> None:
        """Moves the files, which stay in use. Raises OSError, for another file system for one."""
        if self._folder is not None:
            os.listdir(folder)  # raises for a missing one
            for name in os.listdir(self._folder.name):
                os.rename(os.path.join(self._folder.name, name), os.path.join(folder, name))
        self.remove()

    def remove(self) -> None:
        """Removes the folder; a process that ends in the middle of an import does so too."""
        if self._folder is not None:
            self._folder.cleanup()


def _nearest(folder: str) -> str | None:
    """Returns the nearest folder above that this process can write to; None for the usual one."""
    while os.path.dirname(folder) != folder:
        if os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK):
            return folder
        folder = os.path.dirname(folder)
    return None
