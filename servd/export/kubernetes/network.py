"""How pods are reached: Services, and the policies that let in callers alone."""

from __future__ import annotations

from servd.export.containers.pods import PodPlan
from servd.export.kubernetes.objects import KubernetesObject, object_of


def service(pod: PodPlan, *, metrics: bool) -> KubernetesObject:
    """Returns the Service of a pod that has a port, or whose `metrics` are to be found."""
    ports = [
        {"name": port.name, "port": port.outside, "targetPort": port.name} for port in pod.ports
    ]
    if metrics:
        ports.append({"name": "metrics", "port": pod.metrics, "targetPort": "metrics"})
    return object_of(
        pod,
        "Service",
        "v1",
        spec={
            "selector": pod.labels,
            "ports": ports,
        },
    )


def policy(pod: PodPlan) -> KubernetesObject:
    """Returns the policy: public ports and metrics for everybody, others for the callers."""
    rules: list[KubernetesObject] = [{"ports": [_port("metrics")]}]
    public = [_port(port.name) for port in pod.ports if port.public]
    internal = [_port(port.name) for port in pod.ports if not port.public]
    if public:
        rules[0]["ports"] += public
    if internal and pod.callers:
        callers = [
            {"podSelector": {"matchLabels": {"app.kubernetes.io/name": name}}}
            for name in pod.callers
        ]
        rules.append({"from": callers, "ports": internal})
    return object_of(
        pod,
        "NetworkPolicy",
        "networking.k8s.io/v1",
        spec={
            "podSelector": {"matchLabels": pod.labels},
            "policyTypes": ["Ingress"],
            "ingress": rules,
        },
    )


def _port(name: str) -> KubernetesObject:
    return {"port": name, "protocol": "TCP"}


def service_monitor(pod: PodPlan) -> KubernetesObject:
    """Returns what the operator of Prometheus reads: it finds the pods by their Service."""
    return object_of(
        pod,
        "ServiceMonitor",
        "monitoring.coreos.com/v1",
        spec={
            "selector": {"matchLabels": pod.labels},
            "endpoints": [{"port": "metrics", "path": "/metrics"}],
        },
    )
