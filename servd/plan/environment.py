"""Builds the environment of workers. Pure; the daemon's environment is an argument."""

from __future__ import annotations

import fnmatch
import functools
import json
from collections.abc import Mapping

from servd.config.bento.declared import Part
from servd.config.model import Config
from servd.plan.host import Host
from servd.wire.names import DEPENDENCIES, DEPENDENCY_PREFIX, PROMETHEUS_FOLDER, SERVICE

BASE = (
    "PATH", "HOME", "USER", "LANG", "LC_*", "TZ", "SSL_CERT_*",
    "*_PROXY", "*_proxy", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", f"{DEPENDENCY_PREFIX}*",
)  # fmt: skip
"""Variables that every worker inherits from the daemon, with those that limit the daemon, and the
addresses of dependencies, which a container's environment sets."""

_OF_PROGRAMS = {"PYTHONUNBUFFERED": "1"}
"""Variables of commands: output of Python programs arrives at once and is not lost at exit."""

_OWN = (
    "SERVD_*", "JOURNAL_STREAM", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET",
    "WATCHDOG_*",
)  # fmt: skip
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
    that code, values in the code of a dependency, the account of `user`, defaults.env_file,
    defaults.env, env_file, env, servd's own. `app_metrics` is the folder of prometheus_client ("":
    none); the config overrides it.
    """
    service, shared = config.services[name], config.defaults
    patterns = (*BASE, *service.env_passthrough)
    declared, of_dependency = _declared(part) if service.bento else ({}, {})
    if service.bento:
        patterns = (*patterns, "BENTOML_*", *declared)
    environment = {"PATH": _DEFAULT_PATH} | {
        variable: value
        for variable, value in host.environ.items()
        if matches_any(variable, patterns) and not is_own(variable)
    }
    environment = {n: v for n, v in declared.items() if v is not None} | environment | of_dependency
    if service.command:
        environment = _OF_PROGRAMS | environment
    account = host.accounts.get(service.user)
    if account is not None:
        environment |= {"HOME": account.home, "USER": account.name, "LOGNAME": account.name}
    for table in (shared, service):
        for file in table.env_file:
            environment |= host.env_files.get(file.path, {})
        environment |= table.env
    if chosen := environment.pop(PROMETHEUS_FOLDER, app_metrics):
        environment[PROMETHEUS_FOLDER] = chosen
    reached = json.dumps({n: dict(a) for n, a in sorted(dependencies.items()) if a})
    environment |= {SERVICE: name, DEPENDENCIES: reached}
    return dict(sorted(environment.items()))


def is_own(variable: str) -> bool:
    """Returns whether a variable is of one process, and never inherited."""
    return matches_any(variable, _OWN) and not variable.startswith(DEPENDENCY_PREFIX)


def _declared(part: Part | None) -> tuple[dict[str, str | None], dict[str, str]]:
    """Returns the variables in the code for a service, and the values that outrank the daemon's
    variables, as `bentoml serve` has it: a dependency has the variables of the entry, and its own
    values for others.
    """
    if part is None:
        return {}, {}
    own = {n: v for n, v in part.declared.env.items() if n not in part.entry_env}
    stronger = {} if part.is_entry else {n: v for n, v in own.items() if v is not None}
    return {**part.entry_env, **own}, stronger


@functools.lru_cache(8192)  # the services of a daemon ask the same
def matches_any(variable: str, patterns: tuple[str, ...]) -> bool:
    """Returns whether a variable's name matches one of `patterns` (globs)."""
    return any(fnmatch.fnmatchcase(variable, pattern) for pattern in patterns)
