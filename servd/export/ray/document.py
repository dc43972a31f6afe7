"""The configuration of Ray Serve (`serve deploy FILE`), alone or as a RayService of KubeRay."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from servd.core.address import EVERY_V4
from servd.core.diagnostics import Diagnostic, in_order
from servd.core.quick_dataclass import dataclass
from servd.export.containers.options import ExportSource
from servd.export.containers.yaml_text import yaml_text
from servd.export.ray.application import application, is_exported, replicas_of
from servd.export.ray.fitness import PublicServices, paths_elsewhere, secrets_in_the_open
from servd.export.ray.options import RayDocument, RayOptions, number
from servd.export.report import not_carried
from servd.plan.model import ServicePlan


@dataclass(frozen=True, slots=True)
class RayExport:
    """The configuration, and what is not carried over."""

    document: RayDocument
    diagnostics: tuple[Diagnostic, ...]

    @property
    def applications(self) -> dict[str, RayDocument]:
        """The applications by name, dependencies first."""
        return {each["name"]: each for each in self.document["applications"]}


def export(source: ExportSource, options: RayOptions) -> RayExport:
    """Returns what Ray Serve needs to run a configuration."""
    services = [service for service in source.plan.services if is_exported(service)]
    public = PublicServices(source, services)
    found = not_carried(source.loaded, "ray")
    found += secrets_in_the_open(source, services)
    found += paths_elsewhere(source, services)
    found += public.problems()
    document = {
        **_http(public),
        "applications": [
            application(service, source, options, public.route(service.name))
            for service in services
        ],
    }
    return RayExport(document, tuple(in_order(found)))


def _http(public: PublicServices) -> RayDocument:
    """Returns the options of Ray's proxies, which the whole cluster shares."""
    first = public.first
    if first is None:
        return {}
    kept = max(service.timeouts.keep_alive for service in public.by_name.values())
    options: dict[str, Any] = {
        "host": public.address.host or EVERY_V4,
        "port": public.address.port,
        "keep_alive_timeout_s": math.ceil(kept),
    }
    if first.tls is not None:
        options |= {"ssl_certfile": first.tls.certfile, "ssl_keyfile": first.tls.key_source}
    return {"http_options": options}


def ray_service(exported: RayExport, source: ExportSource, name: str, image: str) -> RayDocument:
    """Returns the RayService of KubeRay that runs the configuration: a head without replicas, and
    one worker pod with room for all of them.
    """
    services = [service for service in source.plan.services if is_exported(service)]
    cpus, gpus = (_sum(exported, services, kind) for kind in ("num_cpus", "num_gpus"))
    needs: dict[str, Any] = {"requests": {"cpu": cpus}}
    if gpus:
        needs["limits"] = {"nvidia.com/gpu": gpus}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": name},
        "spec": {
            "serveConfigV2": yaml_text([exported.document]).removeprefix("---\n"),
            "rayClusterConfig": {
                "headGroupSpec": {
                    "rayStartParams": {"dashboard-host": EVERY_V4, "num-cpus": "0"},
                    "template": _pod("ray-head", image, {"requests": {"cpu": 1}}),
                },
                "workerGroupSpecs": [
                    {
                        "groupName": "workers",
                        "replicas": 1,
                        "minReplicas": 1,
                        "maxReplicas": 1,
                        "rayStartParams": {},
                        "template": _pod("ray-worker", image, needs),
                    }
                ],
            },
        },
    }


def _sum(exported: RayExport, services: Sequence[ServicePlan], kind: str) -> int:
    """Returns how much of a resource all replicas need, at their most and while they surge."""
    total = 0.0
    for service in services:
        (deployment,) = exported.applications[service.name]["deployments"]
        scale = service.definition.autoscale
        most = scale.max if scale is not None else replicas_of(service.definition)
        surge = 1 + deployment["max_surge_percent"] / 100
        total += math.ceil(most * surge) * deployment["ray_actor_options"].get(kind, 0)
    return int(number(math.ceil(total)))


def _pod(container: str, image: str, resources: RayDocument) -> RayDocument:
    return {"spec": {"containers": [{"name": container, "image": image, "resources": resources}]}}
