"""What every worker process of a daemon needs, independent of its service."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field

from servd.core.quick_dataclass import dataclass
from servd.supervisor.counters import CounterRegistry
from servd.supervisor.gpus import GpuRoom
from servd.supervisor.io.output import Sink
from servd.supervisor.io.print_file import NoPrintFiles, PrintFiles
from servd.supervisor.io.rate_limit import LineRates
from servd.supervisor.io.reader import ReadBudget
from servd.supervisor.sources import Sources
from servd.supervisor.templates.registry import Templates
from servd.supervisor.worker_registry import WorkerRegistry


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """`environ` is the daemon's environment. `replan` asks for a reload when a worker can import
    what the daemon could not examine. `sources` are noted in development only. `needs_app`: an app
    that cannot be imported, or fails at its startup, is not tried again.
    """

    sink: Sink
    now: Callable[[], str]
    notify_folder: str
    environ: Mapping[str, str]
    registry: WorkerRegistry
    replan: Callable[[str], object]
    sources: Sources | None = None
    needs_app: bool = False
    templates: Templates = field(default_factory=lambda: Templates(enabled=False))
    print_files: PrintFiles = field(default_factory=NoPrintFiles)
    gpus: GpuRoom = field(default_factory=GpuRoom)
    counters: CounterRegistry = field(default_factory=CounterRegistry)
    rates: LineRates = field(default_factory=LineRates)
    budget: ReadBudget = field(default_factory=ReadBudget)
