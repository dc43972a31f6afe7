"""Objects of Kubernetes as values."""

from __future__ import annotations

from typing import Any

from servd.export.containers.pods import PodPlan

KubernetesObject = dict[str, Any]


def object_of(pod: PodPlan, kind: str, version: str, **fields: Any) -> KubernetesObject:
    """Returns an object of a pod, by its name and with its labels."""
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": pod.name, "labels": pod.labels},
        **fields,
    }
