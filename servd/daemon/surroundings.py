"""Updates what follows each reload outside the services: files, certificates, GPUs, systemd."""

from __future__ import annotations

from datetime import UTC, datetime

from servd.config.load import Loaded
from servd.core.quick_dataclass import dataclass
from servd.daemon.fd_store import FdStore
from servd.daemon.gpus.knowledge import GpuKnowledge
from servd.daemon.gpus.monitor import GpuMonitor
from servd.daemon.lifecycle import Lifecycle
from servd.daemon.reload.desired import DesiredState
from servd.daemon.systemd import Systemd
from servd.daemon.watch.certificates import CertificateWatch
from servd.daemon.watch.config_files import FileWatch
from servd.daemon.watch.inputs import InputWatch
from servd.daemon.watch.sources import SourceWatch
from servd.plan.model import Plan
from servd.supervisor.supervisor import Supervisor


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Observes reloads. `sources` are watched in development only."""

    lifecycle: Lifecycle
    supervisor: Supervisor
    files: FileWatch
    inputs: InputWatch
    sources: SourceWatch | None
    certificates: CertificateWatch
    systemd: Systemd
    store: FdStore
    gpus: GpuMonitor
    known_gpus: GpuKnowledge

    def before_reading(self) -> None:
        """Records the files' content, and tells systemd."""
        self.files.about_to_read()
        if self.lifecycle.phase == "running":
            self.systemd.reloading("Reloading")

    def before_applying(self, plan: Plan) -> None:
        """Measures the GPUs before new services use them."""
        self.known_gpus.before_applying()
        self.gpus.need(plan)

    def after_reload(self, seen: Loaded, desired: DesiredState) -> None:
        """Follows a reload: `seen` was read last, `desired` is in force."""
        self.watch(seen, desired)
        self.store.update(self.supervisor.context.pool)
        self.certificates.look(datetime.now(UTC))
        if self.lifecycle.phase == "running":
            self.systemd.ready(self.supervisor.summary)

    def watch(self, seen: Loaded, desired: DesiredState) -> None:
        """Watches the files of what was read last, and of what is in force."""
        self.files.look_at(seen, desired.loaded)
        watches = desired.loaded.config.daemon.watch
        self.inputs.look_at(desired.plan, wanted=watches)
        self.gpus.follow(desired.plan)
        if self.sources is not None:
            config = (*desired.loaded.files, *desired.loaded.read)
            logs = (desired.loaded.config.daemon.log.file,)
            self.sources.look_at(desired.declared, config, logs)

    async def stop(self) -> None:
        """Stops watching."""
        await self.files.stop()
        await self.inputs.stop()
        if self.sources is not None:
            await self.sources.stop()
