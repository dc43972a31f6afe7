"""Begins to load apps with `preload` as soon as the configuration is known, beside the imports of
the daemon's own modules.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from servd.config.load import Loaded
from servd.daemon.runtime_dir import PRIVATE
from servd.host.facts import inspect_host
from servd.plan.build import build
from servd.supervisor.templates.early_apps import EarlyApps


def begin_early(loaded: Loaded, runtime_dir: str, environ: Mapping[str, str]) -> EarlyApps:
    """Begins those services that wait for nothing. None while there are traces of another daemon in
    the runtime folder: its workers may still use what the import does.
    """
    apps, config = EarlyApps(), loaded.config
    alone = {
        name: service
        for name, service in config.services.items()
        if service.preload and not service.depends_on
    }
    if not alone or os.path.lexists(os.path.join(runtime_dir, PRIVATE)):
        return apps
    some = config.model_copy(update={"services": alone})
    host = inspect_host(some, environ)
    at_once = config.daemon.start_concurrency or host.usable_cpus
    apps.begin(build(some, host, runtime_dir, loaded.secrets).services, at_once)
    return apps
