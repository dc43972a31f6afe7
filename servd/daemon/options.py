"""What a daemon is started with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from servd.config.load import Loaded
from servd.daemon.admin_protocol import Admin
from servd.daemon.early_signals import EarlySignals
from servd.daemon.upgrade.old_daemon import OldDaemon


@dataclass(frozen=True, slots=True)
class DaemonOptions:
    """What the daemon is started with: the configuration, how to read it again, who answers for
    it (made for the runtime folder), which signals came early, and where to live when the
    configuration does not say. In development, sources are watched. `give_up` ends a reading that
    is under way, since the daemon stops. The `predecessor` is a daemon whose place this one shall
    take.
    """

    loaded: Loaded
    read: Callable[[], Loaded]
    admin: Callable[[str], Admin]
    early: EarlySignals
    runtime_dir: str | None = None
    watches_sources: bool = False
    give_up: Callable[[], None] = lambda: None
    predecessor: OldDaemon | None = None
