"""The container of a pod: servd with the pod's configuration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from servd.export.containers.certificates import Certificate, certificates_of
from servd.export.containers.needs import MIB, grace_seconds, home_variables, needs_of
from servd.export.containers.options import (
    CONFIG_FILE,
    CONFIG_FOLDER,
    RUNTIME_FOLDER,
    USER,
    ExportSource,
)
from servd.export.containers.pods import PodPlan
from servd.export.containers.secrets import SecretKey
from servd.export.kubernetes.objects import KubernetesObject
from servd.export.kubernetes.options import KubernetesOptions

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


def resources(pod: PodPlan, *, scales: bool) -> KubernetesObject:
    """Returns requests and limits. `scales`: the engine decides on the number of containers."""
    needs = needs_of(pod, scales=scales)
    requests: KubernetesObject = {"cpu": str(needs.cpus)}
    limits: KubernetesObject = {}
    if needs.is_by_cpus:
        limits["cpu"] = requests["cpu"]
    if needs.memory is not None:
        requests["memory"] = _quantity(needs.memory)
        limits["memory"] = _quantity(needs.most_memory)
    if needs.gpus:
        limits["nvidia.com/gpu"] = str(needs.gpus)
    return {"requests": requests, **({"limits": limits} if limits else {})}


def _quantity(size: int) -> str:
    """Returns a number of bytes as Kubernetes spells it."""
    return f"{size // MIB}Mi" if size % MIB == 0 else str(size)
