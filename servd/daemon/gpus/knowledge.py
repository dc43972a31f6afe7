"""What planning knows of the GPUs. Asking may take seconds: in a thread."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

from servd.daemon.gpus.monitor import GpuMonitor
from servd.host.gpu_query import FIRST_SECONDS, GpuAnswer, ask_gpus
from servd.plan.gpu_faults import Quarantine
from servd.plan.gpu_inventory import Ids
from servd.wire.gpus import GpuSnapshot

_AGAIN_SECONDS = 2.0
"""Time limit of a question while it is known what was there before."""


class GpuKnowledge:
    """The GPUs for plans (`KnownGpus`). `asked`: the latest answer; None if there was none. `last`:
    what was told last, however old. `peaks`, `held` and a first `last` come from the previous
    daemon, if there was one. `quarantine`: GPUs that have failed. `tell`: where new figures go.
    """

    def __init__(self, environ: Mapping[str, str], monitor: GpuMonitor) -> None:
        self.asked: GpuSnapshot | None = None
        self.last: GpuSnapshot | None = None
        self.peaks: Mapping[str, int] = {}
        self.quarantine = Quarantine({})
        self.held: Mapping[str, tuple[Ids, ...]] = {}
        self.tell: Callable[[GpuSnapshot | None], object] = lambda snapshot: None
        self._environ = environ
        self._monitor = monitor
        self._keeps = False
        self._kept: GpuAnswer | None = None

    @contextlib.contextmanager
    def one_answer(self) -> Iterator[None]:
        """While this is entered, the driver is asked once at most."""
        self._keeps, self._kept = True, None
        try:
            yield
        finally:
            self._keeps, self._kept = False, None

    def ask(self) -> GpuAnswer:
        """Returns the GPUs. While the driver does not answer, those that it had told last: services
        keep them.
        """
        answer = self._kept or self._ask()
        if self._keeps:
            self._kept = answer
        self.asked = answer.snapshot
        self.last = answer.snapshot or self._monitor.known or self.last
        return GpuAnswer(self.last, answer.error, answer.is_absent)

    def _ask(self) -> GpuAnswer:
        """Asks the driver, unless it is known that it answers, or that it does not."""
        latest = self._monitor.latest
        if latest is not None:
            return latest
        known = self.last is not None or self._monitor.known is not None
        return ask_gpus(self._environ, _AGAIN_SECONDS if known else FIRST_SECONDS)

    def before_applying(self) -> None:
        """Workers start by the answer, as long as nothing newer is measured."""
        if self._monitor.snapshot is None:
            self.tell(self.asked)
