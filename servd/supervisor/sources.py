"""The files that the code of each service was loaded from, as workers report in development."""

from __future__ import annotations

from collections.abc import Iterable


class Sources:
    """Files by service. Entries stay: what a broken edit does not load, the next one does."""

    def __init__(self) -> None:
        self._of: dict[str, set[str]] = {}

    def note(self, service: str, files: Iterable[object]) -> None:
        """Records files that a worker of `service` has loaded, or tried to."""
        self._of.setdefault(service, set()).update(str(file) for file in files)

    def who_loaded(self, file: str) -> set[str]:
        """The services whose code includes the file."""
        return {service for service, files in self._of.items() if file in files}
