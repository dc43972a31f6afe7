"""How many pods there are, and how many must stay."""

from __future__ import annotations

from servd.export.kubernetes.options import ExportSource, KubernetesObject
from servd.export.kubernetes.pods import PodPlan


def fewest_pods(pod: PodPlan, source: ExportSource) -> int:
    """Returns the number of pods below which nothing scales."""
    services = source.as_written.config.services
    is_off = len(pod.services) == 1 and services[pod.services[0]].workers == 0
    return 0 if is_off else 1  # TODO(autoscale): autoscale.min


def replicas(pod: PodPlan, source: ExportSource) -> KubernetesObject:
    """Returns the number of pods of a Deployment; nothing where an autoscaler decides."""
    return {"replicas": fewest_pods(pod, source)}


def disruption_budget(pod: PodPlan) -> KubernetesObject:
    """Returns what keeps all but one pod while nodes are emptied. With one pod it protects
    nothing, and would block that.
    """
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": pod.name, "labels": pod.labels},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": pod.labels}},
    }
