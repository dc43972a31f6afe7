"""Running a daemon in the foreground, from what it lives in to its exit status."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace

from servd.core.basedir import fix_base_dir
from servd.core.paths import runtime_dir_of
from servd.daemon.daemon import Daemon
from servd.daemon.fd_store import FdStore
from servd.daemon.log.buffer import LogRouter
from servd.daemon.log.sink import LogSink, configure
from servd.daemon.options import DaemonOptions
from servd.daemon.runtime_dir import RuntimeDir
from servd.daemon.systemd import Systemd
from servd.daemon.upgrade.state import UpgradeState
from servd.supervisor.sockets.pool import Bound, SocketPool
from servd.wire import listen_fds


def run(launching: DaemonOptions) -> int:
    """Runs a valid configuration in the foreground until it is told to stop.

    Returns the exit status. Raises `StartError` when the daemon itself cannot begin: its log, its
    runtime folder or its admin socket cannot be had.
    """
    if launching.predecessor is not None:
        launching = _in_the_same_folder(launching, launching.predecessor.handover)
    config = launching.loaded.config
    fix_base_dir()
    pool = SocketPool(listen_fds.take_inherited(os.environ))
    systemd = Systemd(mute=launching.predecessor is not None)
    folder = _runtime_dir(launching, pool)
    store = FdStore(systemd)
    if launching.predecessor is None:
        store.adopt(pool.inherited, pool)
    else:
        store.stored = dict(launching.predecessor.handover.stored)
    try:
        sink = LogSink(config.daemon.log)
        try:
            record = LogRouter(sink)
            configure(record.by_daemon, config.daemon.log.level)
            daemon = Daemon(launching, folder, record, systemd, pool, store)
            return asyncio.run(daemon.main())
        finally:
            sink.close()
    finally:
        folder.close()


def _in_the_same_folder(launching: DaemonOptions, left: UpgradeState) -> DaemonOptions:
    """What the configuration says of the runtime folder now needs a restart."""
    config = launching.loaded.config
    daemon = config.daemon.model_copy(update={"runtime_dir": left.runtime_dir_setting})
    loaded = replace(launching.loaded, config=config.model_copy(update={"daemon": daemon}))
    return replace(launching, loaded=loaded)


def _runtime_dir(launching: DaemonOptions, pool: SocketPool) -> RuntimeDir:
    """The folder, ready to be used: a new one, or that of the daemon before, with its sockets."""
    config = launching.loaded.config
    ours = not config.daemon.runtime_dir and "RUNTIME_DIRECTORY" not in os.environ
    if launching.predecessor is None:
        path = runtime_dir_of(
            config.daemon.runtime_dir, launching.loaded.path, launching.runtime_dir
        )
        folder = RuntimeDir(path, ours=ours)
        folder.open()
        return folder
    left = launching.predecessor.handover
    folder = RuntimeDir(left.runtime_dir, ours=ours)
    folder.adopt(left.lock, left.made)
    pool.inherited = left.inherited
    pool.offer(map(Bound.inherit, left.sockets), left.chosen)
    return folder
