"""What the first worker of a generation does alone: deployment hooks, for example."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from servd.wire.worker_spec import BentoSpec

_RECORDED_GENERATIONS = 20
"""Generations kept, in addition to the newest, in the file that records who was deployed."""


@contextlib.contextmanager
def first_of_all(spec: BentoSpec) -> Iterator[bool]:
    """Yields whether this worker is first in its generation. Others wait; one follows a failure."""
    generation = os.environ.get("SERVD_GENERATION", "0")
    path = os.path.join(spec.folder, "deployed")
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = file.read().split()
        yield generation not in done
        if generation not in done:
            file.seek(0)
            file.truncate()
            file.write(" ".join([*done[-_RECORDED_GENERATIONS:], generation]))
