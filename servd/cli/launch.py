"""Starts the daemon; imports its modules while BentoML code is queried."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from servd.core import gc_tuning
from servd.core.errors import ServdError
from servd.core.quick_dataclass import dataclass
from servd.daemon.early_signals import EarlySignals
from servd.daemon.log.lean_import import import_structlog
from servd.wire.names import HANDOVER

if TYPE_CHECKING:
    from servd.bento.describe_client import Description
    from servd.config.bento.declared import GivenAddress
    from servd.config.load import Loaded
    from servd.daemon.upgrade.old_daemon import OldDaemon


@dataclass(frozen=True, slots=True)
class LaunchOptions:
    """How to run the daemon. `load` reads the configuration, which determines the runtime folder
    unless `runtime_dir` is set. `begun` is a query that was started earlier, `address` what a
    command line says of the address of a BentoML service. `needs_app`: the daemon exits if an app
    cannot be imported, or fails at its startup.
    """

    load: Callable[[], Loaded]
    development: bool = False
    watches_sources: bool = False
    runtime_dir: str | None = None
    begun: Description | None = None
    address: GivenAddress | None = None
    needs_app: bool = False


def launch(start: LaunchOptions) -> int:
    """Runs the daemon in the foreground; returns its exit status."""
    gc_tuning.pause()
    import_structlog()
    previous = None
    if HANDOVER in os.environ:
        from servd.daemon.upgrade.old_daemon import take

        previous = take(os.environ)
    try:
        return _run(start, previous)
    except ServdError as error:
        if previous is not None:
            previous.failed(str(error))
        raise


def _run(start: LaunchOptions, previous: OldDaemon | None) -> int:
    with EarlySignals() as early, contextlib.ExitStack() as undo:
        from servd.bento.discovery import Discovery
        from servd.daemon.runtime_dir import folder_for

        discovery = Discovery(start.begun, start.address)
        early.give_up = discovery.give_up
        loaded = start.load().require()
        folder = folder_for(loaded, start.runtime_dir) if previous is None else None
        if folder is not None:
            discovery.near = os.path.dirname(folder.path)
        completed = discovery.begin(loaded, os.environ)
        early_apps = None
        if folder is not None and not start.development:
            from servd.daemon.early_preload import begin_early
            from servd.supervisor.templates.early_apps import EarlyApps

            early_apps = EarlyApps()
            undo.callback(folder.close)
            undo.callback(early_apps.drop)
            begin_early(early_apps, loaded, folder, os.environ)
        from servd.admin.server import AdminServer
        from servd.config.development import developed
        from servd.daemon.options import DaemonOptions
        from servd.daemon.run import run

        def in_mode(loaded: Loaded) -> Loaded:
            return developed(loaded) if start.development else loaded

        def read() -> Loaded:
            return in_mode(discovery.complete(start.load(), os.environ))

        gc_tuning.resume()
        return run(
            DaemonOptions(
                in_mode(completed()).require(),  # the daemon logs the warnings
                read,
                AdminServer,
                early,
                start.runtime_dir,
                watches_sources=start.watches_sources,
                needs_app=start.needs_app,
                give_up=discovery.give_up,
                previous=previous,
                described=discovery.take_waiting,
                early_apps=early_apps,
                folder=folder,
            )
        )
