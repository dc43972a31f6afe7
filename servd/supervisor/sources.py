"""Which files the code of each service was loaded from, as its workers told: for development."""

from __future__ import annotations

from collections.abc import Iterable


class Sources:
    """Files by service. Nothing is forgotten: what a broken edit no longer loads, the next will."""

    def __init__(self) -> None:
        self._of: dict[str, set[str]] = {}

    def note(self, service: str, files: Iterable[object]) -> None:
        """A worker of `service` has loaded these, or tried to."""
        self._of.setdefault(service, set()).update(str(file) for file in files)

    def who_loaded(self, file: str) -> set[str]:
        """The services whose code the file is part of."""
        return {service for service, files in self._of.items() if file in files}
