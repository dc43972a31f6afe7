"""The port of `servd dashboard`, opened."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from support.harness import DEADLINE, ServdProcess


@contextmanager
def dashboard(daemon: ServdProcess) -> Iterator[str]:
    """The address that `servd dashboard` prints; it must end properly too."""
    with daemon.running("dashboard", "--no-browser") as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=DEADLINE)
        assert (process.returncode, "Traceback" in said) == (0, False), said
