"""What runs pods: a Deployment, or a Job for a task."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence

from servd.config.worker_tables import Rollout
from servd.export.containers.certificates import addresses_elsewhere, certificates_of
from servd.export.containers.configuration import (
    environment_of,
    in_the_image,
    is_of_env_file,
    passed_names,
)
from servd.export.containers.names import LONGEST
from servd.export.containers.options import ExportSource
from servd.export.containers.pods import PodPlan
from servd.export.containers.secrets import IN_KUBERNETES, SecretFinder, SecretKey
from servd.export.kubernetes.container import (
    CONTAINER_SECURITY,
    common,
    environment,
    mounts,
    pod_spec,
    resources,
    volumes,
)
from servd.export.kubernetes.objects import KubernetesObject, object_of
from servd.export.kubernetes.options import KubernetesOptions
from servd.export.kubernetes.scaling import replicas

_JOB_KEPT_SECONDS = 24 * 3600
_PROGRESS_SECONDS = 600
_DIGEST_LENGTH = 10


def digest(text: str) -> str:
    """Returns a short digest for a name."""
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_LENGTH]


def with_digest(name: str, text: str) -> str:
    """Returns a name for what has this content."""
    return f"{name[: LONGEST - _DIGEST_LENGTH - 1].rstrip('-')}-{digest(text)}"


def deployment(
    pod: PodPlan,
    source: ExportSource,
    options: KubernetesOptions,
    config_name: str,
    secrets: Sequence[SecretKey],
) -> KubernetesObject:
    """Returns the Deployment of a pod."""
    startup = max((each.startup for each in pod.plan.services), default=0.0)
    return object_of(
        pod,
        "Deployment",
        "apps/v1",
        spec={
            **replicas(pod),
            "progressDeadlineSeconds": math.ceil(max(_PROGRESS_SECONDS, startup + 60)),
            "selector": {"matchLabels": pod.labels},
            "strategy": strategy(pod),
            "template": {
                "metadata": {"labels": pod.labels},
                "spec": pod_spec(pod, source, options, config_name, secrets),
            },
        },
    )


def strategy(pod: PodPlan) -> KubernetesObject:
    """Returns how a Deployment replaces pods: as the service replaces its workers. With all
    services in one pod, a new pod always comes before the old one goes.
    """
    is_whole = len(pod.services) > 1
    rollout = Rollout.unset() if is_whole else pod.plan.service(pod.services[0]).rollout
    if rollout.strategy == "recreate":
        return {"type": "Recreate"}
    surge: int | str = 1 if rollout.strategy == "one-by-one" else rollout.max_surge
    return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": 0}}


def job(
    pod: PodPlan, source: ExportSource, options: KubernetesOptions
) -> tuple[KubernetesObject, tuple[SecretKey, ...]]:
    """Returns the Job of a task and the secrets that it needs. It runs the program itself: a Job is
    over when its container ends, and servd goes on. A change makes another Job.
    """
    (name,) = pod.services
    plan = pod.plan.service(name)
    finder = SecretFinder(source, IN_KUBERNETES)
    command = in_the_image(list(plan.command), source.folder)
    words = finder.replaced(command, ("services", name, "command"))
    literal: list[KubernetesObject] = []
    for variable, value in environment_of(name, source, finder).items():
        if value is None:
            of_file = is_of_env_file(variable, name, source)
            finder.add(variable, ("services", name, "env", variable), of_env_file=of_file)
        else:
            here = in_the_image(value, source.folder)
            literal.append({"name": variable, "value": IN_KUBERNETES.literal(here)})
    for variable in passed_names(name, source):
        finder.add(variable, optional=True)
    for variable, value in addresses_elsewhere(pod, source, finder).items():
        literal.append({"name": variable, "value": value})
    variables = [*environment(pod, finder.keys), *literal]
    tls = certificates_of(pod, source)
    container: KubernetesObject = {
        "name": pod.name,
        "image": options.image,
        "command": [word.replace("{worker}", "0") for word in words],
        "workingDir": in_the_image(plan.directory, source.folder),
        **({"env": variables} if variables else {}),
        "resources": resources(pod, scales=options.scales),
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [
            *mounts(tls),
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  # in the pod
        ],
    }
    is_retried = plan.restart.policy == "on-failure"
    spec: KubernetesObject = {
        "backoffLimit": (plan.restart.give_up_after or 6) if is_retried else 0,
        "ttlSecondsAfterFinished": _JOB_KEPT_SECONDS,
        "template": {
            "metadata": {"labels": pod.labels},
            "spec": {
                **common(),
                "restartPolicy": "Never",
                "activeDeadlineSeconds": math.ceil(plan.startup),
                "terminationGracePeriodSeconds": math.ceil(plan.stop_seconds),
                "containers": [container],
                "volumes": [*volumes(tls), {"name": "tmp", "emptyDir": {}}],
            },
        },
    }
    content = json.dumps(spec, sort_keys=True)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": with_digest(pod.name, content), "labels": pod.labels},
        "spec": spec,
    }, finder.keys
