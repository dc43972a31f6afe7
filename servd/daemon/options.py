"""Options of a daemon."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from servd.config.load import Loaded
from servd.core.quick_dataclass import dataclass
from servd.daemon.admin_protocol import Admin
from servd.daemon.early_signals import EarlySignals
from servd.daemon.runtime_dir import RuntimeDir
from servd.daemon.upgrade.old_daemon import OldDaemon
from servd.supervisor.templates.described import Describing
from servd.supervisor.templates.early_apps import EarlyApps


@dataclass(frozen=True, slots=True)
class DaemonOptions:
    """`loaded` is the configuration, `read` reads it again, `give_up` cancels a read. `admin` makes
    the admin API from the path of the runtime folder, which is `runtime_dir` unless configured.
    `watches_sources` is for development. `needs_app`: see `WorkerContext`. `previous` is the
    daemon that this one replaces. `described` are processes that can become workers, `early_apps`
    those that load apps already; `folder` is the runtime folder of a first daemon, maybe open.
    """

    loaded: Loaded
    read: Callable[[], Loaded]
    admin: Callable[[str], Admin]
    early: EarlySignals
    runtime_dir: str | None = None
    watches_sources: bool = False
    needs_app: bool = False
    give_up: Callable[[], None] = lambda: None
    previous: OldDaemon | None = None
    described: Callable[[], Sequence[Describing]] = tuple
    early_apps: EarlyApps | None = None
    folder: RuntimeDir | None = None
