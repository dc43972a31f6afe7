"""How many pods there are, and how many must stay."""

from __future__ import annotations

import math

from servd.config.worker_tables import Autoscale
from servd.export.containers.pods import PodPlan
from servd.export.kubernetes.objects import KubernetesObject, object_of
from servd.export.kubernetes.options import KubernetesOptions
from servd.plan.autoscale import scaling_of

_CPU_PERCENT = 70
"""Wanted use of the requested CPUs, which leaves room until a new pod is ready."""

_LONGEST_WINDOW = 3600
"""Kubernetes refuses a longer one."""

_PROMETHEUS = "http://prometheus-operated.monitoring.svc:9090"
"""The address that the operator of Prometheus gives it in the namespace of its chart."""


def autoscale_of(pod: PodPlan) -> Autoscale | None:
    """Returns the limits between which pods follow the load; None where servd does that inside, and
    where their number is fixed.
    """
    if len(pod.services) > 1:
        return None
    return scaling_of(pod.plan.service(pod.services[0]))


def fewest_pods(pod: PodPlan) -> int:
    """Returns the number of pods below which nothing scales."""
    scale = autoscale_of(pod)
    if scale is not None:
        return scale.min
    is_off = len(pod.services) == 1 and not pod.plan.service(pod.services[0]).workers
    return 0 if is_off else 1


def replicas(pod: PodPlan) -> KubernetesObject:
    """Returns the number of pods of a Deployment; nothing where an autoscaler decides."""
    if autoscale_of(pod) is not None:
        return {}
    return {"replicas": fewest_pods(pod)}


def autoscaler(pod: PodPlan, scale: Autoscale, options: KubernetesOptions) -> KubernetesObject:
    """Returns what makes the number of pods follow the load. Each has one worker."""
    windows = {
        "scaleUp": {"stabilizationWindowSeconds": _window(scale.up_after)},
        "scaleDown": {"stabilizationWindowSeconds": _window(scale.down_after)},
    }
    if options.scaling == "keda":
        return _scaled_object(pod, scale, windows)
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": pod.name}
    return object_of(
        pod,
        "HorizontalPodAutoscaler",
        "autoscaling/v2",
        spec={
            "scaleTargetRef": target,
            "minReplicas": scale.min,
            "maxReplicas": scale.max,
            "metrics": [_metric(scale, options)],
            "behavior": windows,
        },
    )


def _window(seconds: float) -> int:
    return min(math.ceil(seconds), _LONGEST_WINDOW)


def _metric(scale: Autoscale, options: KubernetesOptions) -> KubernetesObject:
    if options.scaling == "cpu":
        wanted = {"type": "Utilization", "averageUtilization": _CPU_PERCENT}
        return {"type": "Resource", "resource": {"name": "cpu", "target": wanted}}
    average = {"type": "AverageValue", "averageValue": f"{scale.target_in_flight * 1000:.0f}m"}
    metric = {"name": "servd_requests_in_flight"}
    return {"type": "Pods", "pods": {"metric": metric, "target": average}}


def _scaled_object(pod: PodPlan, scale: Autoscale, windows: KubernetesObject) -> KubernetesObject:
    query = f'sum(servd_requests_in_flight{{service="{pod.services[0]}"}})'
    trigger = {
        "type": "prometheus",
        "metadata": {
            "serverAddress": _PROMETHEUS,
            "query": query,
            "threshold": f"{scale.target_in_flight:g}",
        },
    }
    return object_of(
        pod,
        "ScaledObject",
        "keda.sh/v1alpha1",
        spec={
            "scaleTargetRef": {"name": pod.name},
            "minReplicaCount": scale.min,
            "maxReplicaCount": scale.max,
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": windows}},
            "triggers": [trigger],
        },
    )


def disruption_budget(pod: PodPlan) -> KubernetesObject:
    """Returns what keeps all but one pod while nodes are emptied. With one pod it protects
    nothing, and would block that.
    """
    return object_of(
        pod,
        "PodDisruptionBudget",
        "policy/v1",
        spec={"maxUnavailable": 1, "selector": {"matchLabels": pod.labels}},
    )
