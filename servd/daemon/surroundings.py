"""What follows each reload outside the services: files, certificates, systemd and its store."""

from __future__ import annotations

from datetime import UTC, datetime

from servd.config.load import Loaded
from servd.daemon.fd_store import FdStore
from servd.daemon.lifecycle import Lifecycle
from servd.daemon.reload.desired import DesiredState
from servd.daemon.systemd import Systemd
from servd.daemon.watch.certificates import CertificateWatch
from servd.daemon.watch.config_files import FileWatch
from servd.daemon.watch.sources import SourceWatch
from servd.supervisor.supervisor import Supervisor


class Surroundings:
    """The observer of reloads. `sources` are watched in development only."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        supervisor: Supervisor,
        files: FileWatch,
        sources: SourceWatch | None,
        certificates: CertificateWatch,
        systemd: Systemd,
        store: FdStore,
    ) -> None:
        self._lifecycle = lifecycle
        self._supervisor = supervisor
        self._files = files
        self._sources = sources
        self._certificates = certificates
        self._systemd = systemd
        self._store = store

    def before_reading(self) -> None:
        """Files are about to be read."""
        self._files.about_to_read()
        if self._lifecycle.phase == "running":
            self._systemd.reloading("Reloading")

    def after_reload(self, seen: Loaded, desired: DesiredState) -> None:
        """The reload is over: `seen` was read last, `desired` is in force."""
        self.watch(seen, desired)
        self._store.update(self._supervisor.context.pool)
        self._certificates.look(datetime.now(UTC))
        if self._lifecycle.phase == "running":
            self._systemd.ready(self._supervisor.summary)

    def watch(self, seen: Loaded, desired: DesiredState) -> None:
        """Watches the files of what was read last, and of what is in force."""
        self._files.look_at(seen, desired.loaded)
        if self._sources is not None:
            config = (*desired.loaded.files, *desired.loaded.read)
            self._sources.look_at(desired.declared, config)

    async def stop(self) -> None:
        """Ends the watching."""
        await self._files.stop()
        if self._sources is not None:
            await self._sources.stop()
