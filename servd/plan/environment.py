"""What a worker's environment holds. Pure; the daemon's own environment is an argument."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping

from servd.config.bento.declared import Part
from servd.config.model import Config
from servd.plan.host import Host
from servd.wire.names import DEPENDENCIES, PROMETHEUS_FOLDER, SERVICE

BASE = (
    "PATH", "HOME", "USER", "LANG", "LC_*", "TZ", "SSL_CERT_*",
    "*_PROXY", "*_proxy",
)  # fmt: skip
"""Names that every worker takes over from the daemon."""

_OWN = (
    "SERVD_*",
    "JOURNAL_STREAM",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
    "WATCHDOG_*",
)
"""Names that belong to one process and are never taken over."""

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def build_environment(
    config: Config,
    name: str,
    host: Host,
    dependencies: Mapping[str, Mapping[str, str]],
    app_metrics: str,
    part: Part | None = None,
) -> dict[str, str]:
    """The environment of every worker of a service, but for what is a single worker's own.

    Later wins: the base and env_passthrough, the account of `user`, defaults.env_file,
    defaults.env, env_file, env, servd's own. `app_metrics` is a folder for prometheus_client's
    multiprocess mode ("": none), unless the config names one itself, or names "" to have none.
    What the code of a BentoML service (`part`) asks for is taken over from the daemon, like
    env_passthrough, and its own values stand for what is nowhere else.
    """
    service, shared = config.services[name], config.defaults
    patterns = (*BASE, *service.env_passthrough)
    declared: Mapping[str, str | None] = {}
    if service.bento:
        declared = part.declared.env if part is not None else {}
        patterns = (*patterns, "BENTOML_*", *declared)
    environment = {"PATH": _DEFAULT_PATH} | {
        variable: value
        for variable, value in host.environ.items()
        if matches_any(variable, patterns) and not matches_any(variable, _OWN)
    }
    environment |= {
        name: value
        for name, value in declared.items()
        if value is not None and name not in environment
    }
    account = host.accounts.get(service.user)
    if account is not None:
        environment |= {"HOME": account.home, "USER": account.name, "LOGNAME": account.name}
    environment |= host.env_files.get(shared.env_file, {})
    environment |= shared.env
    environment |= host.env_files.get(service.env_file, {})
    environment |= service.env
    chosen = environment.pop(PROMETHEUS_FOLDER, app_metrics)
    if chosen:
        environment[PROMETHEUS_FOLDER] = chosen
    environment |= {
        SERVICE: name,
        DEPENDENCIES: json.dumps({n: dict(a) for n, a in sorted(dependencies.items()) if a}),
    }
    return dict(sorted(environment.items()))


def matches_any(variable: str, patterns: tuple[str, ...]) -> bool:
    """Whether a variable's name is one of `patterns`, which may be globs."""
    return any(fnmatch.fnmatchcase(variable, pattern) for pattern in patterns)
