"""One service of a Compose file: a container with servd, or the program of a task."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

from servd.core.quick_dataclass import dataclass
from servd.export.compose.options import ComposeOptions
from servd.export.containers.certificates import addresses_elsewhere, certificates_of
from servd.export.containers.configuration import (
    environment_of,
    in_the_image,
    is_of_env_file,
    passed_names,
)
from servd.export.containers.names import variable
from servd.export.containers.needs import MIB, grace_seconds, home_variables, needs_of
from servd.export.containers.options import CONFIG_FILE, RUNTIME_FOLDER, USER, ExportSource
from servd.export.containers.pods import PodPlan
from servd.export.containers.secrets import SecretFinder, SecretKey, Spelling

ComposeObject = dict[str, Any]

_PROBE = "import urllib.request as r; r.urlopen('http://127.0.0.1:{port}/readyz', timeout=4)"
_MARGIN_SECONDS = 10

SECURITY: ComposeObject = {
    "user": f"{USER}:{USER}",
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
}


def escaped(value: Any) -> Any:
    """Returns values in which Compose replaces no variable."""
    if isinstance(value, dict):
        return {key: escaped(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [escaped(item) for item in value]
    return value.replace("$", "$$") if isinstance(value, str) else value


def reference(variable: str) -> str:
    """Returns the value of a variable where `docker compose` runs; it must be set."""
    return f"${{{variable}:?set {variable}}}"


def outside(pod: PodPlan, secret: SecretKey) -> str:
    """Returns the variable that gives a secret its value where `docker compose` runs: the one that
    the configuration names, or else one of this service alone.
    """
    return secret.shell or f"{variable(pod.name)}_{secret.variable}"


@dataclass(frozen=True, slots=True)
class TlsFile:
    """A file of a certificate: its name in `secrets`, its path, and that in the container."""

    name: str
    path: str
    target: str


def servd_container(
    pod: PodPlan, source: ExportSource, options: ComposeOptions, secrets: Sequence[SecretKey]
) -> ComposeObject:
    """Returns a container with servd that runs the services of `pod`."""
    files = env_files(pod, source, options)
    from_files = names_in(files, source, options)
    apart = [s for s in secrets if not (s.of_env_file and s.variable in from_files)]
    values = {**addresses(pod), **variables(pod, apart)}
    return {
        "image": options.image,
        "command": ["--config", CONFIG_FILE],
        **SECURITY,
        **({"read_only": True} if options.files else {}),
        "tmpfs": [f"{RUNTIME_FOLDER}:mode=0700,uid={USER},gid={USER}", "/tmp"],  # noqa: S108
        "configs": [{"source": pod.name, "target": CONFIG_FILE}],
        **mounted(tls_files(pod, source, options)),
        **({"env_file": files} if files else {}),
        **({"environment": values} if values else {}),
        **({"ports": ports} if (ports := list(published(pod, source))) else {}),
        "healthcheck": health_check(pod),
        "restart": "unless-stopped",
        "stop_grace_period": f"{stop_seconds(pod, source)}s",
        **amounts(pod),
        **scale_of(pod, options),
    }


def task_container(
    pod: PodPlan, source: ExportSource, options: ComposeOptions
) -> tuple[ComposeObject, tuple[SecretKey, ...]]:
    """Returns the container of a task, and the secrets that it needs. It runs the program itself:
    others wait for its end, and servd would go on.
    """
    (name,) = pod.services
    plan = pod.plan.service(name)
    finder = SecretFinder(
        source, Spelling(escaped, lambda key: reference(outside(pod, finder.found[key])))
    )
    command = in_the_image(list(plan.command), source.folder)
    words = finder.replaced(command, ("services", name, "command"))
    values: dict[str, str | None] = {**addresses(pod)}
    files = env_files(pod, source, options)
    from_files = names_in(files, source, options)
    for key, value in environment_of(name, source, finder).items():
        if value is not None:
            values[key] = escaped(in_the_image(value, source.folder))
        elif not ((of_file := is_of_env_file(key, name, source)) and key in from_files):
            finder.add(key, ("services", name, "env", key), of_env_file=of_file)
    for key in passed_names(name, source):
        finder.add(key, optional=True)
    values |= addresses_elsewhere(pod, source, finder)
    values |= variables(pod, finder.keys)
    is_retried = plan.restart.policy == "on-failure"
    attempts = f":{plan.restart.give_up_after}" if plan.restart.give_up_after else ""
    return {
        "image": options.image,
        "entrypoint": [word.replace("{worker}", "0") for word in words],
        "working_dir": in_the_image(plan.directory, source.folder),
        **SECURITY,
        "read_only": True,
        "tmpfs": ["/tmp"],  # noqa: S108
        **mounted(tls_files(pod, source, options)),
        **({"env_file": files} if files else {}),
        **({"environment": values} if values else {}),
        "restart": f"on-failure{attempts}" if is_retried else "no",
        "stop_grace_period": f"{math.ceil(plan.stop_seconds)}s",
        **amounts(pod),
    }, finder.keys


def variables(pod: PodPlan, secrets: Sequence[SecretKey]) -> dict[str, str | None]:
    """Returns secrets as variables of a container; None: as it is outside, if it is set there."""
    return {
        each.variable: None if each.optional else reference(outside(pod, each)) for each in secrets
    }


def addresses(pod: PodPlan) -> dict[str, str]:
    """Returns the variables with the addresses of dependencies, and of folders."""
    found = home_variables(pod.plan.services)
    for each in pod.reached:
        found[each.url_variable] = f"{each.scheme}://{each.host}:{each.inside}"
    return found


def env_files(pod: PodPlan, source: ExportSource, options: ComposeOptions) -> list[ComposeObject]:
    """Returns the `env_file`s of the services."""
    config = source.as_written.config
    tables = (config.defaults, *(config.services[name] for name in pod.services))
    files = {file.path: file.required for table in tables for file in table.env_file}
    return [
        {"path": beside(path, source, options), **({} if required else {"required": False})}
        for path, required in files.items()
    ]


def names_in(
    files: Sequence[ComposeObject], source: ExportSource, options: ComposeOptions
) -> frozenset[str]:
    """Returns the variables that exactly one of these files sets."""
    known = {
        beside(path, source, options): set(names) for path, names in source.host.env_files.items()
    }
    each = [name for file in files for name in known.get(file["path"], ())]
    return frozenset(name for name in each if each.count(name) == 1)


def beside(path: str, source: ExportSource, options: ComposeOptions) -> str:
    """Returns a path as Compose reads it: relative to its file if it is below the folder of the
    configuration.
    """
    if os.path.relpath(path, source.folder).startswith(".."):
        return path
    found = os.path.relpath(path, options.folder)
    return found if found.startswith("..") else f"./{found}"


def tls_files(pod: PodPlan, source: ExportSource, options: ComposeOptions) -> list[TlsFile]:
    """Returns the files of certificates, which the container has at the paths of its
    configuration.
    """
    found: list[TlsFile] = []
    for each in certificates_of(pod, source):
        between = "." if each.service in pod.external else "-"  # no container has such a name
        begin = pod.name if pod.name == each.service else f"{pod.name}{between}{each.service}"
        for file, path in each.files.items():
            at = beside(path, source, options)
            found.append(TlsFile(f"{begin}-{file}", at, f"{each.folder}/{file}"))
    return found


def mounted(files: Sequence[TlsFile]) -> ComposeObject:
    """Returns the files of certificates as secrets of a container."""
    secrets = [{"source": file.name, "target": file.target} for file in files]
    return {"secrets": secrets} if secrets else {}


def published(pod: PodPlan, source: ExportSource) -> Iterator[ComposeObject]:
    """Yields the ports of public services, on the addresses that they listen on."""
    for port in pod.ports:
        if not port.public:
            continue
        listened = source.as_written.config.services[port.service].listen
        hosts = {a.host for a in listened if a.kind == "tcp" and a.port == port.wanted}
        entry = {"target": port.number, "published": str(port.wanted or port.outside)}
        if hosts & {"", "0.0.0.0", "::"}:  # noqa: S104  # as the user wrote
            yield entry
        else:
            named = {"127.0.0.1" if host == "localhost" else host for host in hosts}
            yield from ({**entry, "host_ip": host} for host in sorted(named))


def health_check(pod: PodPlan) -> ComposeObject:
    """Returns the check: servd is ready. It needs nothing that an image with servd has not."""
    startup = max((each.startup for each in pod.plan.services), default=0.0)
    return {
        "test": ["CMD", "python", "-c", _PROBE.format(port=pod.metrics)],
        "interval": "10s",
        "timeout": "5s",
        "retries": 3,
        "start_period": f"{math.ceil(startup) + _MARGIN_SECONDS}s",
        "start_interval": "1s",
    }


def stop_seconds(pod: PodPlan, source: ExportSource) -> int:
    """Returns the time from the signal to the end, after which the engine kills the container."""
    delay = source.as_written.config.daemon.stop_delay or 0
    return grace_seconds(pod, source, math.ceil(delay))


def amounts(pod: PodPlan) -> ComposeObject:
    """Returns the limits of a container: memory where every service has a limit, and GPUs."""
    needs = needs_of(pod, scales=False)
    found: ComposeObject = {}
    if needs.memory is not None:
        most = needs.most_memory
        found["limits"] = {"memory": f"{most // MIB}m" if most % MIB == 0 else str(most)}
    ids = [str(i) for each in pod.plan.services if isinstance(each.definition.gpus, tuple)
           for i in each.definition.gpus]  # fmt: skip
    device = {"driver": "nvidia", "capabilities": ["gpu"]}
    if ids:
        found["reservations"] = {"devices": [{**device, "device_ids": ids}]}
    elif needs.gpus:
        found["reservations"] = {"devices": [{**device, "count": needs.gpus}]}
    return {"deploy": {"resources": found}} if found else {}


def scale_of(pod: PodPlan, options: ComposeOptions) -> ComposeObject:
    """Returns that there is no container of a service with no workers."""
    is_off = not options.whole and all(each.definition.workers == 0 for each in pod.plan.services)
    return {"scale": 0} if is_off else {}
