"""The export: the Compose file, the configurations of the containers, and what is lost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from servd.core.diagnostics import Diagnostic, in_order
from servd.core.quick_dataclass import dataclass
from servd.export.compose.container import (
    ComposeObject,
    escaped,
    outside,
    servd_container,
    task_container,
    tls_files,
)
from servd.export.compose.options import ComposeOptions
from servd.export.containers.configuration import configuration_of
from servd.export.containers.fitness import (
    addresses_of_this_machine,
    dependencies_out_of_reach,
    paths_elsewhere,
)
from servd.export.containers.names import clashes
from servd.export.containers.options import ExportSource
from servd.export.containers.pods import PodPlan, pods_of
from servd.export.containers.secrets import SecretKey
from servd.export.report import context_of, not_carried


@dataclass(frozen=True, slots=True)
class Wait:
    """What became of one `depends_on`: the condition in servd and that in Compose."""

    service: str
    needs: str
    condition: str
    becomes: str

    def __str__(self) -> str:
        return f"{self.service} depends on {self.needs} ({self.condition}): {self.becomes}"


@dataclass(frozen=True, slots=True)
class ComposeExport:
    """The Compose file, `configs` (text by name of the file, unless they are in it), what became of
    each dependency, variables that must be set, and what is not carried over.
    """

    content: ComposeObject
    configs: dict[str, str]
    waits: tuple[Wait, ...]
    variables: tuple[SecretKey, ...]
    diagnostics: tuple[Diagnostic, ...]


def export_compose(source: ExportSource, options: ComposeOptions) -> ComposeExport:
    """Returns what Compose needs to run a configuration."""
    checked = context_of(source.loaded)
    found = not_carried(source.loaded, "compose", whole=options.whole)
    if not options.whole:
        config = source.as_written.config.services
        found += clashes(checked, [name for name, each in config.items() if not each.external])
        found += addresses_of_this_machine(source, "container")
        found += dependencies_out_of_reach(source, "container")
    found += paths_elsewhere(source)
    pods = pods_of(source, options)
    services: ComposeObject = {}
    configs: dict[str, str] = {}
    secrets: ComposeObject = {}
    needed: dict[str, SecretKey] = {}
    waits: list[Wait] = []
    for pod in pods:
        if pod.is_task:
            container, keys = task_container(pod, source, options)
        else:
            configuration = configuration_of(pod, source, options)
            configs[pod.name] = configuration.text
            keys = configuration.secrets
            container = servd_container(pod, source, options, keys)
        secrets |= {file.name: {"file": file.path} for file in tls_files(pod, source, options)}
        own = list(_waits(pod, pods, source))
        waits += own
        conditions = {each.needs: {"condition": each.becomes} for each in own}
        if conditions:
            container["depends_on"] = {name_of(n, pods): c for n, c in conditions.items()}
        if not options.whole:
            container["networks"] = [pod.name, *(name_of(n, pods) for n in conditions)]
        asked = container.get("environment", {})
        for key in keys:
            if asked.get(key.variable):
                name = outside(pod, key)
                needed[name] = replace(key, variable=name)
        services[pod.name] = container
    files = {name: f"servd-{name}.toml" for name in configs}
    content: ComposeObject = {
        "name": options.name,
        "services": services,
        "configs": {
            name: {"file": f"./{files[name]}"} if options.files else {"content": escaped(text)}
            for name, text in configs.items()
        },
        **({"secrets": secrets} if secrets else {}),
        **({} if options.whole else {"networks": {pod.name: {} for pod in pods}}),
    }
    written = {files[name]: text for name, text in configs.items()} if options.files else {}
    return ComposeExport(
        content,
        written,
        tuple(waits),
        tuple(sorted(needed.values())),
        tuple(in_order(found)),
    )


def name_of(service: str, pods: list[PodPlan]) -> str:
    """Returns the name of the container that a service is in."""
    whole = service.partition(".")[0]  # a component runs with its service
    return next(pod.name for pod in pods if whole in pod.services)


def _waits(pod: PodPlan, pods: list[PodPlan], source: ExportSource) -> Iterator[Wait]:
    """Yields what becomes of each dependency on a service in another container."""
    config = source.as_written.config.services
    tasks = {name for each in pods if each.is_task for name in each.services}
    for name in pod.services:
        for each in config[name].depends_on:
            whole = each.service.partition(".")[0]
            if whole in pod.services or config[whole].external:
                continue
            becomes = {
                "ready": "service_healthy",
                "started": "service_started",
                "completed": "service_completed_successfully",
            }[each.condition]
            if each.service in tasks and each.condition == "ready":
                becomes = "service_completed_successfully"
            yield Wait(name, each.service, each.condition, becomes)
