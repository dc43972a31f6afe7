"""The export: every object of every pod, what has to be created by hand, and what is lost."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from servd.core.diagnostics import Diagnostic, in_order
from servd.core.quick_dataclass import dataclass
from servd.export.containers.certificates import certificates_of
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
from servd.export.kubernetes.container import secret_name
from servd.export.kubernetes.network import policy, service, service_monitor
from servd.export.kubernetes.objects import KubernetesObject
from servd.export.kubernetes.options import KubernetesOptions
from servd.export.kubernetes.scaling import (
    autoscale_of,
    autoscaler,
    disruption_budget,
    fewest_pods,
)
from servd.export.kubernetes.workload import deployment, job, with_digest
from servd.export.report import context_of, not_carried


@dataclass(frozen=True, slots=True)
class ExportedPod:
    """The objects of one pod, without those that Kustomize generates. `config` is the text of its
    servd.toml ("": a task has none), `secrets` the variables of its Secret.
    """

    pod: PodPlan
    objects: tuple[KubernetesObject, ...]
    config_name: str
    config: str
    secrets: tuple[SecretKey, ...]


@dataclass(frozen=True, slots=True)
class KubernetesExport:
    """All pods, and what is not carried over."""

    pods: tuple[ExportedPod, ...]
    diagnostics: tuple[Diagnostic, ...]
    secret_commands: tuple[str, ...]

    @property
    def objects(self) -> list[KubernetesObject]:
        """Every object, each after what it refers to."""
        return [one for pod in self.pods for one in pod.objects]


def export(source: ExportSource, options: KubernetesOptions) -> KubernetesExport:
    """Returns what Kubernetes needs to run a configuration."""
    checked = context_of(source.loaded)
    found = not_carried(source.loaded, "kubernetes", whole=options.whole)
    if not options.whole:
        services = source.as_written.config.services
        found += clashes(checked, [name for name, each in services.items() if not each.external])
        found += [*addresses_of_this_machine(source), *dependencies_out_of_reach(source)]
    found += paths_elsewhere(source)
    pods = tuple(_exported(pod, source, options) for pod in pods_of(source, options))
    commands = tuple(line for each in pods for line in _secret_commands(each, source, options))
    return KubernetesExport(pods, tuple(in_order(found)), commands)


def _exported(pod: PodPlan, source: ExportSource, options: KubernetesOptions) -> ExportedPod:
    if pod.is_task:
        one, secrets = job(pod, source, options)
        return ExportedPod(pod, (_placed(one, options),), "", "", secrets)
    configuration = configuration_of(pod, source, options)
    config_name = with_digest(pod.name, configuration.text)
    if options.live_config:
        config_name = f"{pod.name}-config"
    objects = [
        config_map(pod, config_name, configuration.text, options),
        deployment(pod, source, options, config_name, configuration.secrets),
        *_around(pod, options),
    ]
    placed = tuple(_placed(one, options) for one in objects)
    return ExportedPod(pod, placed, config_name, configuration.text, configuration.secrets)


def config_map(pod: PodPlan, name: str, text: str, options: KubernetesOptions) -> KubernetesObject:
    """Returns the ConfigMap. It never changes: a change has another name, so it is a rollout that
    can be undone.
    """
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": pod.labels},
        **({} if options.live_config else {"immutable": True}),
        "data": {"servd.toml": text},
    }


def _around(pod: PodPlan, options: KubernetesOptions) -> Iterator[KubernetesObject]:
    if pod.ports or options.service_monitor:
        yield service(pod, metrics=options.service_monitor)
    yield policy(pod)
    scale = autoscale_of(pod)
    if scale is not None:
        yield autoscaler(pod, scale, options)
    if fewest_pods(pod) > 1:
        yield disruption_budget(pod)
    if options.service_monitor:
        yield service_monitor(pod)


def _placed(one: KubernetesObject, options: KubernetesOptions) -> KubernetesObject:
    """Returns an object in the namespace of the options."""
    if not options.namespace:
        return one
    metadata = {"name": one["metadata"]["name"], "namespace": options.namespace}
    return {**one, "metadata": metadata | one["metadata"]}


def _secret_commands(
    each: ExportedPod, source: ExportSource, options: KubernetesOptions
) -> Iterator[str]:
    """Yields the commands that create the Secrets: names alone, values come from the shell and
    from files.
    """
    where = ["--namespace", options.namespace] if options.namespace else []
    if each.secrets:
        yield _command(
            ["kubectl", "create", "secret", "generic", secret_name(each.pod), *where],
            [one.option for one in each.secrets],
        )
    for tls in certificates_of(each.pod, source):
        kind = ["--type=kubernetes.io/tls"] if tls.has_key else []
        files = [f"--from-file={key}={shlex.quote(file)}" for key, file in tls.files.items()]
        words = ["kubectl", "create", "secret", "generic", tls.secret, *where]
        yield _command(words, [*kind, *files])


def _command(words: Sequence[str], options: Sequence[str]) -> str:
    return f"{shlex.join(words)} {' '.join(options)}"
