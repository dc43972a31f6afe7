"""The effective configuration as values that can be loaded again with the same meaning."""

from __future__ import annotations

from typing import Any

from servd.config.check_runners import NOT_OF_COMMANDS, REQUEST_LIMITS
from servd.config.load import Loaded
from servd.config.model import Config
from servd.config.service import ServiceBase
from servd.config.table import Switchable
from servd.core.errors import ServdError
from servd.core.secrets import mask_values

_RUNNERS = ("app", "command", "bento", "external")
_SWITCHED = tuple(
    name for name, field in ServiceBase.model_fields.items() if Switchable in field.metadata
)
"""Tables that `false` switches off."""


_NOT_OF_COMMANDS: tuple[tuple[str, ...], ...] = (
    ("health",),
    ("autoscale",),
    *((key,) for key in NOT_OF_COMMANDS),
    *(("limits", key) for key in REQUEST_LIMITS),
)
_NOT_OF_APPS = (("ready",), ("health", "tcp"), ("health", "command"))
_NOT_OF_BENTOS = (("factory",), ("interface",), ("preload",))
"""Keys that `[defaults]` can set for other services, but a service of this kind cannot have."""

_SHARED = ("env", "env_file")
"""Keys of `[defaults]` that no service takes over: they are read when a worker starts."""


def effective(loaded: Loaded, *, everything: bool = False) -> dict[str, Any]:
    """Returns the effective configuration, includes and variables resolved, secrets masked. A key
    is left out only if it is not set: one that is set to its default may override `[defaults]` or
    BentoML code. With `everything`, keys that are not set have their default, unless that would
    change the meaning.
    """
    result = mask_values(unmasked(loaded, everything=everything), (), loaded.secrets)
    assert isinstance(result, dict)
    return result


def unmasked(loaded: Loaded, *, everything: bool = False) -> dict[str, Any]:
    """Returns the effective configuration with its secrets, which must not be shown."""
    dumped = _said(loaded.config)
    if everything:
        dumped = _all(loaded.config, dumped)
    _leave_out(loaded, dumped.get("services", {}))
    for table in (dumped.get("defaults", {}), *dumped.get("services", {}).values()):
        for key in _SWITCHED:
            if key in table and table[key] is None:
                table[key] = False
    return dumped


def of_service(values: dict[str, Any], name: str) -> dict[str, Any]:
    """Returns of an effective configuration the service `name`, with the environment that it shares
    with others. Raises `ServdError` if the service is unknown.
    """
    services = values.get("services", {})
    if name not in services:
        known = ", ".join(sorted(services)) or "none"
        raise ServdError(f'unknown service "{name}". Services: {known}')
    defaults = values.get("defaults", {})
    shared = {key: defaults[key] for key in _SHARED if key in defaults}
    return {**({"defaults": shared} if shared else {}), "services": {name: services[name]}}


def _said(config: Config) -> dict[str, Any]:
    """Returns what files and variables set. `include` is resolved."""
    dumped = config.model_dump(mode="json", exclude_unset=True, exclude={"include"})
    if dumped.get("version") == Config.model_fields["version"].default:
        del dumped["version"]
    return {key: value for key, value in dumped.items() if value not in ({}, [])}


def _leave_out(loaded: Loaded, services: dict[str, Any]) -> None:
    """Removes what a service inherits from `[defaults]` and could not set itself."""
    for name, table in services.items():
        service = loaded.config.services[name]
        refused = _NOT_OF_COMMANDS if service.command else _NOT_OF_APPS
        for path in (*refused, *_NOT_OF_BENTOS) if service.bento else refused:
            if loaded.layers is None or not loaded.layers.own(("services", name, *path)):
                holder = table if len(path) == 1 else table.get(path[0])
                if isinstance(holder, dict):
                    holder.pop(path[-1], None)


def _all(config: Config, said: dict[str, Any]) -> dict[str, Any]:
    """Returns every key, except those of the other runners, those that BentoML services and
    `[defaults]` do not set, which would override the code, and those that do not apply to services
    which run elsewhere.
    """
    dumped = config.model_dump(mode="json", exclude={"include"})
    dumped["defaults"] = said.get("defaults", {})
    for name, service in config.services.items():
        if service.bento or service.external:
            dumped["services"][name] = said["services"][name]
            continue
        table = dumped["services"][name]
        dumped["services"][name] = {
            key: value
            for key, value in table.items()
            if (key not in _RUNNERS or value) and not (key == "workers" and service.autoscale)
        }
    return dumped
