"""The configuration that servd has in a pod."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from servd.config.dump import escaped, to_text
from servd.config.effective import unmasked
from servd.config.model import Config
from servd.config.service import ServiceBase
from servd.config.tree import Path
from servd.core.quick_dataclass import dataclass
from servd.export.containers.certificates import in_the_container
from servd.export.containers.options import APP_FOLDER, ContainerOptions, ExportSource
from servd.export.containers.pods import PodPlan, ReachedService, listens_of
from servd.export.containers.secrets import IN_SERVD, SecretFinder, SecretKey
from servd.export.report import is_carried, set_keys

_PATIENCE = "7d"

_OWN_WAYS = ("listen", "gpus", "env_passthrough", "depends_on.condition", "proxy.trusted")
"""Keys of which only some values are lost, and the rest is written."""


@dataclass(frozen=True, slots=True)
class PodConfiguration:
    """The text of a pod's servd.toml, and the variables that it refers to."""

    text: str
    secrets: tuple[SecretKey, ...]


def configuration_of(
    pod: PodPlan, source: ExportSource, options: ContainerOptions
) -> PodConfiguration:
    """Returns the configuration of a pod."""
    loaded = source.as_written
    finder = SecretFinder(source, IN_SERVD, taken_names(pod, source))
    values = unmasked(loaded)
    named = (*pod.services, *pod.external)
    services = {name: values["services"][name] for name in named}
    whole = {
        "daemon": values.get("daemon", {}),
        "admin": values.get("admin", {}),
        "hooks": values.get("hooks", []),
        "services": services,
    }
    for each in set_keys(loaded, named):
        if each.key not in _OWN_WAYS and not is_carried(each, options.engine, whole=options.whole):
            _remove(whole, each.path)
    written: dict[str, Any] = {
        "daemon": options.daemon(whole["daemon"], loaded.config),
        "admin": {**whole["admin"], "metrics": f":{pod.metrics}"},
        "hooks": finder.replaced(whole["hooks"], ("hooks",)),
        "services": {
            **{
                name: _service(name, services[name], pod, source, finder, scales=options.scales)
                for name in pod.services
            },
            **{name: _external(name, services[name], finder) for name in pod.external},
            **{each.service: _elsewhere(each, loaded.config) for each in pod.reached},
        },
    }
    for name in ("daemon", "admin"):
        written[name] = finder.replaced(written[name], (name,))
    kept = {key: value for key, value in written.items() if value}
    text = to_text(in_the_image(kept, source.folder), "toml")
    return PodConfiguration(text, finder.keys)


def _service(
    name: str,
    table: Mapping[str, Any],
    pod: PodPlan,
    source: ExportSource,
    finder: SecretFinder,
    *,
    scales: bool,
) -> dict[str, Any]:
    path: Path = ("services", name)
    apart = ("env", "env_file", "env_passthrough", "listen", "depends_on", "tls")
    found = {
        key: finder.replaced(value, (*path, key))
        for key, value in table.items()
        if key not in apart
    }
    if name in (addresses := listens_of(pod)):
        found["listen"] = addresses[name]
    if needed := _dependencies(table, pod):
        found["depends_on"] = needed
    if len(pod.services) == 1 and (table.get("workers") == 0 or (scales and "autoscale" in table)):
        found["workers"] = 1  # and no pod, or as many as an autoscaler wants
        found.pop("autoscale", None)
    if table.get("tls"):
        found["tls"] = _tls(name, table["tls"], finder)
    if environment := environment_of(name, source, finder):
        found["env"] = {
            variable: finder.reference(
                (*path, "env", variable), of_env_file=is_of_env_file(variable, name, source)
            )
            if value is None
            else escaped(value)
            for variable, value in environment.items()
        }
    if passed := passed_names(name, source):
        found["env_passthrough"] = passed
        for variable in passed:
            finder.add(variable, optional=True)
    return found


def _external(name: str, table: Mapping[str, Any], finder: SecretFinder) -> dict[str, Any]:
    found: dict[str, Any] = finder.replaced(table, ("services", name))
    return {**found, "tls": _tls(name, table["tls"], finder)} if table.get("tls") else found


def _dependencies(table: Mapping[str, Any], pod: PodPlan) -> list[dict[str, str]]:
    """Returns what a service waits for: what is in its pod, and what was elsewhere before. It does
    not wait for other pods, which Kubernetes starts in any order, and replaces meanwhile.
    """
    given: list[dict[str, str]] = list(table.get("depends_on", ()))
    here = (*pod.services, *pod.external)
    kept = [each for each in given if each["service"].partition(".")[0] in here]
    others = {each.service for each in pod.reached}
    return kept + [
        {"service": each["service"], "condition": "started"}
        for each in given
        if each["service"] in others
    ]


def _elsewhere(reached: ReachedService, config: Config) -> dict[str, Any]:
    """Returns a dependency in another pod; its address is a variable of the container. A pod does
    not end because another comes late.
    """
    ends = config.daemon.on_start_failure == "exit"
    patience = {"timeouts": {"startup": _PATIENCE}} if ends else {}
    return {"external": f"${{{reached.url_variable}}}", **patience}


def _tls(name: str, table: Mapping[str, Any], finder: SecretFinder) -> dict[str, Any]:
    found: dict[str, Any] = finder.replaced(table, ("services", name, "tls"))
    return found | in_the_container(name, table)


def environment_of(name: str, source: ExportSource, finder: SecretFinder) -> dict[str, str | None]:
    """Returns the variables that the configuration sets for a service, None for secrets: those of
    an `env_file` may all be some.
    """
    config = source.as_written.config
    found: dict[str, str | None] = {}
    ways: list[tuple[Path, ServiceBase]] = [
        (("defaults",), config.defaults),
        (("services", name), config.services[name]),
    ]
    for way, table in ways:
        for file in table.env_file:
            found |= dict.fromkeys(source.host.env_files.get(file.path, {}))
        for variable, value in table.env.items():
            is_secret = finder.is_secret(value, (*way, "env", variable))
            found[variable] = None if is_secret else value
    return dict(sorted(found.items()))


def is_of_env_file(variable: str, name: str, source: ExportSource) -> bool:
    """Returns whether the value of a variable of a service is that in an `env_file`."""
    config = source.as_written.config
    service = config.services[name]
    if variable in service.env:
        return False
    own = (source.host.env_files.get(file.path, {}) for file in service.env_file)
    return variable not in config.defaults.env or any(variable in names for names in own)


def taken_names(pod: PodPlan, source: ExportSource) -> set[str]:
    """Returns the variables of a container that services take over from it, and addresses."""
    passed = {variable for name in pod.services for variable in passed_names(name, source)}
    return passed | {n for each in pod.reached for n in (each.host_variable, each.url_variable)}


def passed_names(name: str, source: ExportSource) -> list[str]:
    """Returns the variables of the container that a service takes over, without globs."""
    passed = source.as_written.config.services[name].env_passthrough
    return [variable for variable in passed if not set(variable) & set("*?[")]


def _remove(values: dict[str, Any], path: Path) -> None:
    """Removes the value at `path`, if it is there."""
    *way, last = path
    table: Any = values
    for step in way:
        if not isinstance(table, dict) or step not in table:
            return
        table = table[step]
    if isinstance(table, dict):
        table.pop(last, None)


def in_the_image(value: Any, folder: str) -> Any:
    """Returns values with the paths below `folder` as they are in the image."""
    if isinstance(value, dict):
        return {key: in_the_image(entry, folder) for key, entry in value.items()}
    if isinstance(value, list):
        return [in_the_image(item, folder) for item in value]
    if isinstance(value, str) and (value == folder or value.startswith(f"{folder}/")):
        return f"{APP_FOLDER}{value[len(folder) :]}"
    return value
