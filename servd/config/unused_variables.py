"""Warns about variables that look like those of servd and have no effect."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from servd.config.explain import did_you_mean
from servd.config.model import Config
from servd.core.diagnostics import Diagnostic, Place
from servd.wire import names

_OVERRIDE = re.compile(r"SERVD_(DAEMON|ADMIN|DEFAULTS)__.+", re.IGNORECASE)
_KNOWN = (
    "SERVD_CONFIG", "SERVD_ADMIN", "SERVD_ADMIN_TOKEN", names.SERVICE, names.WORKER,
    names.GENERATION, names.DEPENDENCIES, names.HANDOVER, names.LIFELINE,
    names.GPU_BACKEND,
)  # fmt: skip
"""Those that servd reads, and those that it gives to workers, which may run a servd."""


def unused_variables(
    environ: Mapping[str, str], texts: Iterable[str], config: Config
) -> list[Diagnostic]:
    """Returns a warning for each variable that is called `SERVD_...`, that servd does not read,
    and that no file mentions.
    """
    files = "\n".join(texts)
    passed = [
        pattern
        for service in (config.defaults, *config.services.values())
        for pattern in service.env_passthrough
    ]
    return [
        Diagnostic(
            Place(f"<environment {name}>"), "has no effect", hint=_hint(name), severity="warning"
        )
        for name in sorted(environ)
        if name.upper().startswith("SERVD_")
        and name not in _KNOWN
        and not name.startswith(names.DEPENDENCY_PREFIX)
        and not _OVERRIDE.fullmatch(name)
        and name not in files
        and not any(fnmatchcase(name, pattern) for pattern in passed)
    ]


def _hint(name: str) -> str:
    if single := re.fullmatch(r"SERVD_(DAEMON|ADMIN|DEFAULTS)_([A-Z].*)", name, re.IGNORECASE):
        return f"write SERVD_{single[1]}__{single[2]}, with two underscores before each key"
    if "__" in name:
        return "variables can set keys of [daemon], [admin] and [defaults]: SERVD_DEFAULTS__WORKERS"
    known = {known.lower(): known for known in _KNOWN}
    return did_you_mean(name, list(known)).upper().replace("DID YOU MEAN", "did you mean")
