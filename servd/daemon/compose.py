"""The composition root: builds a daemon from components that are complete when made."""

from __future__ import annotations

import os

from servd.core.diagnostics import Diagnostic, Place
from servd.daemon.autoscaler import Autoscaler
from servd.daemon.components import DaemonComponents, DaemonResources
from servd.daemon.daemon import Daemon
from servd.daemon.gpus.knowledge import GpuKnowledge
from servd.daemon.gpus.monitor import GpuMonitor
from servd.daemon.gpus.quarantine import GpuQuarantine
from servd.daemon.hooks import Hooks
from servd.daemon.lifecycle import Lifecycle
from servd.daemon.log.sink import now
from servd.daemon.metrics.compactor import MetricsCompactor
from servd.daemon.metrics.cpu import CpuMeter
from servd.daemon.metrics.history import INTERVAL_SECONDS, RateHistory
from servd.daemon.metrics.rates import RequestRates
from servd.daemon.options import DaemonOptions
from servd.daemon.orphans import OrphanCleaner
from servd.daemon.parent_watch import ParentWatch
from servd.daemon.periodic import Periodic
from servd.daemon.reload.desired import DesiredState
from servd.daemon.reload.own_settings import OwnSettings, start_limit
from servd.daemon.reload.planner import Planner
from servd.daemon.reload.queue import ReloadQueue
from servd.daemon.reload.reloader import Reloader
from servd.daemon.reload.replanning import Replanning
from servd.daemon.surroundings import Surroundings
from servd.daemon.upgrade.takeover import Takeover
from servd.daemon.upgrade.upgrader import Upgrades
from servd.daemon.watch.certificates import CertificateWatch
from servd.daemon.watch.clock import ClockWatch
from servd.daemon.watch.config_files import FileWatch
from servd.daemon.watch.inputs import InputWatch
from servd.daemon.watch.runtime_folder import RuntimeFolderWatch
from servd.daemon.watch.sources import SourceWatch
from servd.host.other_servd import advice, other_servd
from servd.plan.gpu_faults import Quarantine
from servd.supervisor.circus.arbiter import ServdArbiter
from servd.supervisor.circus.start_limiter import StartLimiter
from servd.supervisor.circus.worker_context import WorkerContext
from servd.supervisor.context import SupervisorContext
from servd.supervisor.gpus import GpuRoom
from servd.supervisor.sources import Sources
from servd.supervisor.supervisor import Supervisor
from servd.supervisor.templates.registry import IDLE_SECONDS, Templates
from servd.supervisor.worker_registry import WorkerRegistry, orphaned_workers

_ADDRESS_SECONDS = 0.5
"""How often servd checks which workers are due for a look at what they bind."""

_DEVELOPMENT_SECONDS = 3600.0
"""How long a template may be idle where each saved file starts workers."""


def compose(options: DaemonOptions, resources: DaemonResources) -> Daemon:
    """Builds a daemon, in its loop. Raises `LoadError` when more GPUs are requested than exist."""
    folder, router, loaded = resources.folder, resources.router, options.loaded
    parent = ParentWatch(os.environ)  # removes its descriptor from the environment
    environ = dict(os.environ)
    gpus = GpuMonitor(environ)
    planner = Planner(environ, folder.path, now, GpuKnowledge(environ, gpus))
    reasons = dict(options.previous.state.gpu_quarantine) if options.previous is not None else {}
    planner.gpus.quarantine = Quarantine(reasons)
    desired, warnings = _first_state(options, planner)
    lifecycle = Lifecycle()
    queue = ReloadQueue(lifecycle.stopping, now)
    supervisor = _supervisor(options, resources, planner, lifecycle, queue)
    templates = supervisor.context.workers.templates
    templates.add_described(options.described(), desired.plan.services)
    context, workers = supervisor.context, supervisor.context.workers
    _measure(gpus, planner.gpus, workers.gpus)
    admin = options.admin(folder.path)
    path = os.path.abspath(loaded.path)
    config_folder = path if os.path.isdir(path) else os.path.dirname(path)
    hooks = Hooks(loaded.config.hooks, config_folder, planner.environ)
    router.subscribe(hooks.take)
    certificates = CertificateWatch(supervisor)
    files = FileWatch(queue.ask)
    files.has_read(loaded)
    sources = SourceWatch(queue.ask, workers.sources) if workers.sources is not None else None
    surroundings = Surroundings(
        lifecycle=lifecycle,
        supervisor=supervisor,
        files=files,
        inputs=InputWatch(queue.ask),
        sources=sources,
        certificates=certificates,
        systemd=resources.systemd,
        store=resources.store,
        gpus=gpus,
        known_gpus=planner.gpus,
    )
    reloader = Reloader(
        desired=desired,
        read=options.read,
        planner=planner,
        queue=queue,
        supervisor=supervisor,
        settings=OwnSettings(
            router, folder, admin, hooks, context.start_limiter, planner.usable_cpus
        ),
        observer=surroundings,
        now=now,
        boot=router.boot,
    )
    quarantine = GpuQuarantine(reasons, gpus, supervisor, lambda: reloader.desired, queue.ask)
    components = DaemonComponents(resources, lifecycle, queue, supervisor, reloader, admin)
    compactor = MetricsCompactor(folder)
    autoscaler = Autoscaler(lambda: reloader.desired, workers.counters, queue.ask)
    rates = RequestRates(workers.counters)
    history = RateHistory()

    def sample() -> None:
        history.record({name: rate for name, rate in rates.all() if name in supervisor.services})

    orphans = orphaned_workers(folder.private) if options.previous is None else []
    return Daemon(
        options=options,
        components=components,
        warnings=(*loaded.warnings, *warnings, *_of_the_environment()),
        upgrades=Upgrades(components, is_owned=parent.held),
        takeover=Takeover(components, options.previous) if options.previous is not None else None,
        surroundings=surroundings,
        orphans=OrphanCleaner(orphans, desired.plan),
        parent=parent,
        hooks=hooks,
        gpus=gpus,
        quarantine=quarantine,
        rates=rates,
        autoscaler=autoscaler,
        history=history,
        cpu=CpuMeter(),
        compactor=compactor,
        periodics=(
            compactor.sweeps,
            rates.readings,
            autoscaler.looks,
            Periodic(INTERVAL_SECONDS, sample, later=True),
            certificates.looks,
            ClockWatch().looks,
            Periodic(_ADDRESS_SECONDS, supervisor.addresses.look_at_due, later=True),
            RuntimeFolderWatch(folder, supervisor, admin, queue.ask).looks,
        ),
    )


def _supervisor(
    options: DaemonOptions,
    resources: DaemonResources,
    planner: Planner,
    lifecycle: Lifecycle,
    queue: ReloadQueue,
) -> Supervisor:
    folder = resources.folder
    arbiter = ServdArbiter()
    limit = start_limit(options.loaded.config, planner.usable_cpus)
    idle_seconds = _DEVELOPMENT_SECONDS if options.watches_sources else IDLE_SECONDS
    templates = Templates(arbiter.manage_watchers, idle_seconds=idle_seconds)
    templates.adopt_early(options.early_apps)
    workers = WorkerContext(
        sink=resources.router.by_worker,
        now=now,
        notify_folder=folder.notify,
        environ=planner.environ,
        registry=WorkerRegistry(folder.private),
        replan=Replanning(queue.ask).ask,
        sources=Sources() if options.watches_sources else None,
        needs_app=options.needs_app,
        print_files=resources.router.print_files,
        templates=templates,
        gpus=GpuRoom(arbiter.manage_watchers),
    )
    context = SupervisorContext(
        arbiter=arbiter,
        pool=resources.pool,
        start_limiter=StartLimiter(limit, arbiter.manage_watchers),
        workers=workers,
        stopping=lifecycle.stopping,
        gpu_memory=workers.gpus.memory_of,
    )
    numbers = options.previous.state.numbers if options.previous is not None else {}
    return Supervisor(context, numbers)


def _measure(monitor: GpuMonitor, known: GpuKnowledge, room: GpuRoom) -> None:
    """Lets workers start by what is measured of the GPUs, and plans know what they take."""
    room.peaks.update(known.peaks)
    room.known = known.last
    known.peaks = room.peaks
    room.quarantine = known.quarantine
    known.tell = room.take
    known.tell(known.asked)
    room.look = monitor.look_soon
    monitor.subscribe(room.take)


def _of_the_environment() -> list[Diagnostic]:
    version = other_servd()
    return [Diagnostic(Place("servd"), advice(version), severity="warning")] if version else []


def _first_state(options: DaemonOptions, planner: Planner) -> tuple[DesiredState, list[Diagnostic]]:
    """Returns the state desired at the start, and warnings. Raises `LoadError`."""
    loaded = options.loaded
    if options.previous is None:
        return planner.first(loaded, {}, {}, {}, revision=1)
    state = options.previous.state
    planner.gpus.peaks, planner.gpus.held = state.gpu_peaks, state.gpus
    planner.gpus.last = state.known_gpus
    revision = state.generation + (loaded.digest != state.digest)
    overrides = state.overrides(loaded.config)
    return planner.first(loaded, overrides, state.ports, state.workers, revision)
