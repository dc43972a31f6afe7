"""The files that the code of each service was loaded from, as workers report in development."""

from __future__ import annotations

import os
from collections.abc import Iterable


class Sources:
    """What workers report, by service: files, `/app/words` for a module that was searched there,
    `/app/words/` for one that is nowhere (`servd.worker.sources`). Entries stay: what a broken edit
    does not load, the next one does. What was missing is no longer once it is found.
    """

    def __init__(self) -> None:
        self._of: dict[str, set[str]] = {}

    def note(self, service: str, found: Iterable[object]) -> None:
        """Records what a worker of `service` has loaded, or tried to."""
        known = self._of.setdefault(service, set())
        for path in map(str, found):
            known.add(path)
            if not path.endswith(os.sep):
                known.discard(path + os.sep)

    def has(self, service: str) -> bool:
        """Whether a worker of `service` has reported anything."""
        return bool(self._of.get(service))

    def who_loaded(self, file: str) -> set[str]:
        """The services whose code includes the file, or would include it."""
        paths = {file, module_path(file)}
        above = os.path.dirname(file)
        while len(above) > 1:
            paths.add(above + os.sep)
            above = os.path.dirname(above)
        paths.add(module_path(file) + os.sep)
        return {service for service, known in self._of.items() if not known.isdisjoint(paths)}


def module_path(file: str) -> str:
    """Returns `/app/words` for `/app/words.py`, `/app/words/__init__.py` and `/app/words.abi3.so`;
    the path itself if it is no file of a module.
    """
    folder, name = os.path.split(file)
    if not name.endswith((".py", ".so")):
        return file
    stem = name.partition(".")[0]
    return folder if stem == "__init__" else os.path.join(folder, stem)
