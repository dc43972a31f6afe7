"""The container of a pod: servd with the pod's configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from servd.config.gpu_table import gpus_each
from servd.export.kubernetes.certificates import Certificate, certificates_of
from servd.export.kubernetes.options import (
    CONFIG_FILE,
    CONFIG_FOLDER,
    MARGIN_SECONDS,
    RUNTIME_FOLDER,
    USER,
    ExportSource,
    KubernetesObject,
    KubernetesOptions,
)
from servd.export.kubernetes.pods import PodPlan
from servd.export.kubernetes.secrets import SecretKey
from servd.plan.autoscale import scaling_of
from servd.plan.model import ServicePlan

_BENTOML_HOME = "/tmp/bentoml"  # noqa: S108  # in the pod

_MIB = 2**20
_DAEMON_BYTES = 128 * _MIB

POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def secret_name(pod: PodPlan) -> str:
    """Returns the name of the Secret with a pod's variables."""
    return f"{pod.name}-secrets"


def pod_spec(
    pod: PodPlan,
    source: ExportSource,
    options: KubernetesOptions,
    config_name: str,
    secrets: Sequence[SecretKey],
) -> KubernetesObject:
    """Returns the specification of a pod that servd runs in."""
    config = source.as_written.config
    pre_stop = options.pre_stop_seconds(config)
    tls = certificates_of(pod, source)
    container: KubernetesObject = {
        "name": pod.name,
        "image": options.image,
        "args": ["--config", CONFIG_FILE],
        **({"env": env} if (env := environment(pod, secrets)) else {}),
        "ports": [
            *({"name": port.name, "containerPort": port.number} for port in pod.ports),
            {"name": "metrics", "containerPort": pod.metrics},
        ],
        **probes(pod),
        **(
            {"lifecycle": {"preStop": {"sleep": {"seconds": pre_stop}}}}
            if options.has_sleep
            else {}
        ),
        "resources": resources(pod, scales=options.scales),
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [
            {"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True},
            *mounts(tls),
            {"name": "run", "mountPath": RUNTIME_FOLDER},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  # in the pod
        ],
    }
    return {
        **common(),
        "terminationGracePeriodSeconds": grace_seconds(pod, source, pre_stop),
        "containers": [container],
        "volumes": [
            {"name": "config", "configMap": {"name": config_name}},
            *volumes(tls),
            {"name": "run", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }


def mounts(certificates: Sequence[Certificate]) -> list[KubernetesObject]:
    """Returns where certificates are in a container."""
    return [
        {"name": f"tls-{number}", "mountPath": each.folder, "readOnly": True}
        for number, each in enumerate(certificates)
    ]


def volumes(certificates: Sequence[Certificate]) -> list[KubernetesObject]:
    """Returns the volumes of a pod with certificates."""
    return [
        {"name": f"tls-{number}", "secret": {"secretName": each.secret}}
        for number, each in enumerate(certificates)
    ]


def pre_stop_sleep(seconds: int) -> KubernetesObject:
    """Returns the handler that lets endpoints learn of the end of a pod before it drains."""
    return {"lifecycle": {"preStop": {"sleep": {"seconds": seconds}}}}


def common() -> KubernetesObject:
    """Returns what every pod has: no token, and no variables about unrelated Services."""
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": POD_SECURITY,
    }


def environment(pod: PodPlan, secrets: Sequence[SecretKey]) -> list[KubernetesObject]:
    """Returns the variables of the container: addresses of dependencies, and secrets."""
    found: list[KubernetesObject] = []
    found += [
        {"name": name, "value": value} for name, value in home_variables(pod.plan.services).items()
    ]
    for each in pod.reached:
        found.append({"name": each.host_variable, "value": each.host})
        found.append({"name": each.url_variable, "value": each.url})
    for secret in secrets:
        reference: dict[str, Any] = {"name": secret_name(pod), "key": secret.variable}
        if secret.optional:
            reference["optional"] = True
        found.append({"name": secret.variable, "valueFrom": {"secretKeyRef": reference}})
    return found


def home_variables(services: Sequence[ServicePlan]) -> dict[str, str]:
    """Returns where BentoML makes its folder, since it may not write to its home: but not where
    that folder, with a Bento in it, is part of the image.
    """
    parts = [each.part for each in services if each.definition.bento]
    is_written = bool(parts) and not any(part is not None and part.tag for part in parts)
    return {"BENTOML_HOME": _BENTOML_HOME} if is_written else {}


def probes(pod: PodPlan) -> KubernetesObject:
    """Returns the probes. Liveness asks servd alone, which replaces sick workers itself."""
    startup = max((each.startup for each in pod.plan.services), default=0.0)
    attempts = math.ceil(startup / 2) + 5

    def get(path: str, **limits: int) -> KubernetesObject:
        return {"httpGet": {"path": path, "port": "metrics"}, **limits}

    return {
        "startupProbe": get(
            "/readyz",
            periodSeconds=2,
            timeoutSeconds=2,
            failureThreshold=attempts,
        ),
        "readinessProbe": get("/readyz", periodSeconds=5, timeoutSeconds=2, failureThreshold=2),
        "livenessProbe": get("/livez", periodSeconds=10, timeoutSeconds=5, failureThreshold=6),
    }


def grace_seconds(pod: PodPlan, source: ExportSource, pre_stop: int) -> int:
    """Returns the time from the decision to end a pod until it is killed."""
    limit = source.as_written.config.daemon.shutdown_timeout
    longest = pod.plan.stop_seconds
    ends = longest if limit == "auto" else min(longest, float(limit))
    return math.ceil(pre_stop + ends + MARGIN_SECONDS)


def resources(pod: PodPlan, *, scales: bool) -> KubernetesObject:
    """Returns requests and limits: a CPU for each worker, and memory where each service has a
    limit; old and new workers run at the same time while servd replaces one. `scales`: the engine
    decides on the number of containers. Otherwise the limit is enough for the most workers.
    """
    services = pod.plan.services
    numbers = {each.name: _workers(each, pod, scales=scales) for each in services}
    workers = sum(numbers.values())
    requests: KubernetesObject = {"cpu": str(max(1, workers))}
    limits: KubernetesObject = {}
    if any(each.definition.workers == "auto" for each in services):
        limits["cpu"] = requests["cpu"]
    running = [each for each in services if numbers[each.name]]
    if running and all(each.limits.memory is not None for each in running):
        most = {each.name: _workers(each, pod, scales=scales, most=True) for each in running}
        requests["memory"] = quantity(_memory(running, numbers) + _DAEMON_BYTES)
        limits["memory"] = quantity(2 * _memory(running, most) + _DAEMON_BYTES)
    if gpus := _gpus(services, numbers):
        limits["nvidia.com/gpu"] = str(gpus)
    return {"requests": requests, **({"limits": limits} if limits else {})}


def _memory(services: Sequence[ServicePlan], workers: Mapping[str, int]) -> int:
    return sum(workers[each.name] * (each.limits.memory or 0) for each in services)


def _workers(service: ServicePlan, pod: PodPlan, *, scales: bool, most: bool = False) -> int:
    """Returns the number of workers in a pod; "auto" is one for each CPU of the limit. An
    autoscaler of pods has them with one each; otherwise servd starts the fewest, or the `most`.
    """
    given = service.definition
    if (scale := scaling_of(service)) is not None:
        if scales and pod.services == (service.name,):
            return 1
        return scale.max if most else scale.min
    is_off = given.workers == 0 and len(pod.services) == 1
    return 1 if given.workers == "auto" or is_off else service.workers


def _gpus(services: Sequence[ServicePlan], workers: Mapping[str, int]) -> int:
    total = 0.0
    for each in services:
        asked = each.definition.gpus
        if isinstance(asked, tuple):
            total += len(asked)
        else:
            of_code = each.part.gpus if each.part is not None and not asked else 0
            total += (gpus_each(asked) or of_code) * workers[each.name]
    return math.ceil(total)


def quantity(size: int) -> str:
    """Returns a number of bytes as Kubernetes spells it."""
    return f"{size // _MIB}Mi" if size % _MIB == 0 else str(size)
