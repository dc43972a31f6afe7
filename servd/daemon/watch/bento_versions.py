"""Which version of a Bento in BentoML's store is the latest, for services that ask for that one."""

from __future__ import annotations

import os
from collections.abc import Iterator

from servd.plan.model import Plan


class BentoVersions:
    """Compares the versions that run with those that the store calls the latest."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def folders(self, plan: Plan) -> list[str]:
        """Returns the folders in which a new version shows, and those in which the end of these
        does: the kernel does not report it of a folder while a process is in one below it.
        """
        own = [os.path.realpath(os.path.dirname(file)) for file, _, _ in _followed(plan)]
        return [*own, *map(os.path.dirname, own)]

    def news(self, plan: Plan) -> Iterator[str]:
        """Yields each target of `bento` that has another version, once for each version."""
        for file, running, target in _followed(plan):
            try:
                with open(file, encoding="utf-8") as opened:
                    version = opened.read().strip()
            except (OSError, ValueError):
                continue
            if not version or version == running:  # BentoML empties the file, then writes it
                self._said.pop(file, None)
            elif self._said.get(file) != version:
                self._said[file] = version
                yield target


def _followed(plan: Plan) -> set[tuple[str, str, str]]:
    """Returns the files that name the latest version, the version that runs, and the target."""
    return {
        (s.part.latest, s.part.tag.partition(":")[2], s.definition.bento)
        for s in plan.services
        if s.part is not None and s.part.latest and s.workers
    }
