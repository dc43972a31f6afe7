"""Runs a daemon in the foreground: opens its resources, and returns its exit status."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace

from servd.core.basedir import fix_base_dir
from servd.core.processes import adopt_orphans
from servd.daemon.components import DaemonResources
from servd.daemon.compose import compose
from servd.daemon.fd_store import FdStore
from servd.daemon.log.buffer import LogRouter
from servd.daemon.log.sink import LogSink, configure
from servd.daemon.options import DaemonOptions
from servd.daemon.runtime_dir import RuntimeDir, folder_for
from servd.daemon.systemd import Systemd
from servd.daemon.thread_pool import ResilientThreadPool
from servd.daemon.upgrade.state import UpgradeState
from servd.supervisor.sockets.pool import Bound, SocketPool
from servd.wire import listen_fds


def run(options: DaemonOptions) -> int:
    """Runs a valid configuration until it is told to stop; returns the exit status. Raises
    `StartError` when the log, the runtime folder or the admin socket cannot be opened.
    """
    if options.previous is not None:
        options = _in_the_same_folder(options, options.previous.state)
    config = options.loaded.config
    fix_base_dir()
    adopt_orphans()
    pool = SocketPool(listen_fds.take_inherited(os.environ))
    systemd = Systemd(mute=options.previous is not None)
    folder = _runtime_dir(options, pool)
    store = FdStore(systemd)
    if options.previous is None:
        store.adopt(pool.inherited, pool)
    else:
        store.stored = dict(options.previous.state.stored)
    try:
        sink = LogSink(config.daemon.log)
        try:
            router = LogRouter(sink)
            configure(router.by_daemon, config.daemon.log.level)
            resources = DaemonResources(folder, router, systemd, pool, store)
            try:
                return asyncio.run(_main(options, resources))
            finally:
                router.print_files.close()
        finally:
            sink.close()
    finally:
        folder.close()


async def _main(options: DaemonOptions, resources: DaemonResources) -> int:
    asyncio.get_running_loop().set_default_executor(ResilientThreadPool())
    return await compose(options, resources).run()


def _in_the_same_folder(options: DaemonOptions, state: UpgradeState) -> DaemonOptions:
    """Keeps the previous runtime folder: another setting needs a restart."""
    config = options.loaded.config
    daemon = config.daemon.model_copy(update={"runtime_dir": state.runtime_dir_setting})
    loaded = replace(options.loaded, config=config.model_copy(update={"daemon": daemon}))
    return replace(options, loaded=loaded)


def _runtime_dir(options: DaemonOptions, pool: SocketPool) -> RuntimeDir:
    """Opens a new folder, unless that was done early, or adopts that of the previous daemon with
    its sockets.
    """
    if options.previous is None:
        folder = options.folder or folder_for(options.loaded, options.runtime_dir)
        if folder.lock < 0:
            folder.open()
        return folder
    state = options.previous.state
    folder = folder_for(options.loaded, options.runtime_dir, state.runtime_dir)
    folder.adopt(state.lock, state.made)
    pool.inherited = state.inherited
    pool.preload(map(Bound.inherit, state.sockets), state.chosen)
    return folder
