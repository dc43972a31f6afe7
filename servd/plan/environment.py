"""Builds the environment of workers. Pure; the daemon's environment is an argument."""

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
"""Variables that every worker inherits from the daemon."""

_OWN = (
    "SERVD_*",
    "JOURNAL_STREAM",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
    "WATCHDOG_*",
)
"""Variables of one process, never inherited."""

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def build_environment(
    config: Config,
    name: str,
    host: Host,
    dependencies: Mapping[str, Mapping[str, str]],
    app_metrics: str,
    part: Part | None = None,
) -> dict[str, str]:
    """Returns the environment of a service's workers, without variables of single workers. Later
    wins: values in the code of a BentoML service (`part`), BASE, env_passthrough and the names in
    that code, the account of `user`, defaults.env_file, defaults.env, env_file, env, servd's own.
    `app_metrics` is the folder of prometheus_client ("": none); the config overrides it.
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
    """Returns whether a variable's name matches one of `patterns` (globs)."""
    return any(fnmatch.fnmatchcase(variable, pattern) for pattern in patterns)
