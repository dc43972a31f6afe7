"""What planning knows of the GPUs. Asking may take seconds: in a thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from servd.daemon.gpus.monitor import GpuMonitor
from servd.host.gpu_query import QUERY_SECONDS, query_gpus
from servd.plan.gpu_faults import Quarantine
from servd.plan.gpu_inventory import Ids
from servd.wire.gpus import GpuSnapshot

_AGAIN_SECONDS = 2.0
"""Time limit of a question while it is known what was there before."""


class GpuKnowledge:
    """The GPUs for plans (`KnownGpus`). `asked`: the latest answer; None if there was none. `peaks`
    and `held` come from the previous daemon, if there was one. `quarantine`: GPUs that have failed.
    `tell`: where new figures go.
    """

    def __init__(self, environ: Mapping[str, str], monitor: GpuMonitor) -> None:
        self.asked: GpuSnapshot | None = None
        self.peaks: Mapping[str, int] = {}
        self.quarantine = Quarantine({})
        self.held: Mapping[str, tuple[Ids, ...]] = {}
        self.tell: Callable[[GpuSnapshot | None], object] = lambda snapshot: None
        self._environ = environ
        self._monitor = monitor
        self._last: GpuSnapshot | None = None

    def ask(self) -> GpuSnapshot | None:
        """Returns the GPUs. While the driver does not answer, those that it had told last: services
        keep them.
        """
        seconds = QUERY_SECONDS if self._last is None else _AGAIN_SECONDS
        self.asked = self._monitor.snapshot or query_gpus(self._environ, seconds)
        self._last = self.asked or self._last
        return self._last

    def before_applying(self) -> None:
        """Workers start by the answer, as long as nothing newer is measured."""
        if self._monitor.snapshot is None:
            self.tell(self.asked)
