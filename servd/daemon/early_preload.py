"""Begins to load apps with `preload` as soon as the configuration is known, beside the imports of
the daemon's own modules.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from servd.config.load import Loaded
from servd.daemon.runtime_dir import RuntimeDir
from servd.host.facts import inspect_host
from servd.plan.build import build
from servd.supervisor.templates.early_apps import EarlyApps


def begin_early(
    apps: EarlyApps, loaded: Loaded, folder: RuntimeDir, environ: Mapping[str, str]
) -> None:
    """Begins those services that wait for nothing, and opens the runtime folder, which holds their
    metrics. None where a daemon has left workers in the folder, which may still use what the import
    does, nor where GPUs are given to services or kept from them: that is planned later.

    Raises `StartError` as `RuntimeDir.open`.
    """
    config = loaded.config
    services = config.services
    alone = {n: s for n, s in services.items() if s.preload and s.app and not s.depends_on}
    if not alone or any(s.gpus != 0 for s in services.values()) or os.path.lexists(folder.private):
        return
    folder.open()
    some = config.model_copy(update={"services": alone})
    host = inspect_host(some, environ)
    at_once = config.daemon.start_concurrency or host.usable_cpus
    apps.begin(build(some, host, folder.path, loaded.secrets).services, at_once)
