"""One service as an application of Ray Serve."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any

from servd.config.gpu_table import gpus_each
from servd.config.service import Service
from servd.engines.ray.replica_spec import BUILDER, ENGINE, BentoArguments, ReplicaSpec
from servd.export.containers.options import ExportSource
from servd.export.ray.options import (
    LATEST_CHECK_SECONDS,
    MOST_ONGOING,
    RayDocument,
    RayOptions,
    number,
)
from servd.plan.model import ServicePlan
from servd.wire.names import DEPENDENCIES
from servd.wire.worker_spec import AppSpec


def is_exported(service: ServicePlan) -> bool:
    """Returns whether a service becomes an application."""
    runs = service.app is not None and not service.is_task
    return runs and service.definition.workers != 0


def application(
    service: ServicePlan, source: ExportSource, options: RayOptions, route: str | None
) -> RayDocument:
    """Returns the application of a service. Without a `route`, only other services reach it."""
    variables = environment_of(service)
    runtime: dict[str, Any] = {"working_dir": options.working_dir}
    if variables:
        runtime["env_vars"] = variables
    return {
        "name": service.name,
        "route_prefix": route,
        "import_path": BUILDER,
        "runtime_env": runtime,
        "args": replica_spec(service, source, options).to_args(),
        "deployments": [_deployment(service, options)],
        "logging_config": {"enable_access_log": False},
    }


def environment_of(service: ServicePlan) -> dict[str, str]:
    """Returns the variables that the file, or BentoML code, gives a value."""
    found = dict(service.declared_env)
    if service.part is not None:
        declared = {**service.part.entry_env, **service.part.declared.env}
        found = {name: text for name, text in declared.items() if text is not None} | found
    return dict(sorted(found.items()))


def replica_spec(service: ServicePlan, source: ExportSource, options: RayOptions) -> ReplicaSpec:
    """Returns what a replica of a service runs."""
    app, health = service.app, service.definition.health
    assert app is not None
    return ReplicaSpec(
        service=service.name,
        app=_target(app, service, source.folder),
        digest=options.digest,
        directory=_below(service.directory, source.folder),
        factory=app.factory,
        interface=app.interface,
        threads=app.threads,
        root_path=app.root_path,
        lifespan=app.uvicorn.lifespan,
        request=_limit(app.timeouts.request),
        request_total=_limit(app.timeouts.request_total),
        concurrency=app.limits.concurrency,
        queue=app.limits.queue,
        body=app.limits.body,
        health_path=health.path if health is not None else "",
        health_host=health.host if health is not None else "localhost",
        health_timeout=number(health.timeout) if health is not None else 2.0,
        health_interval=number(health.interval) if health is not None else 10.0,
        start_failures=health.start_failures if health is not None else 30,
        access_log=app.log.access,
        depends=_addresses(service),
        bento=_bento(service),
    )


def _limit(seconds: float | None) -> float | None:
    return None if seconds is None else number(seconds)


def _target(app: AppSpec, service: ServicePlan, folder: str) -> str:
    """Returns what is loaded; a file below `folder` by its path from the directory."""
    named = service.definition.app or service.definition.bento
    if named.startswith(f"{folder}/"):
        return os.path.relpath(named, service.directory)
    return named


def _below(path: str, folder: str) -> str:
    """Returns a path below the working directory of Ray; others stay as they are."""
    if path == folder:
        return ""
    return os.path.relpath(path, folder) if path.startswith(f"{folder}/") else path


def _addresses(service: ServicePlan) -> dict[str, dict[str, str]]:
    """Returns where dependencies are: at handles, or elsewhere."""
    reached: Mapping[str, Mapping[str, str]] = json.loads(service.environment[DEPENDENCIES])
    return {
        name: {"url": f"http://{name}", "engine": ENGINE}
        if "uds" in entry
        else {key: text for key, text in entry.items() if key != "version"}
        for name, entry in sorted(reached.items())
    }


def _bento(service: ServicePlan) -> BentoArguments | None:
    part, app = service.part, service.app
    if part is None or app is None or app.bento is None:
        return None
    others = {name: other for name, other in part.graph.items() if other != service.name}
    return BentoArguments(
        part=app.bento.service,
        reached=dict(sorted(others.items())),
        workers=app.bento.workers,
        keeps_timeout=part.keeps_timeout,
        keeps_concurrency=part.keeps_concurrency,
        arguments=app.bento.arguments,
    )


def _deployment(service: ServicePlan, options: RayOptions) -> RayDocument:
    given = service.definition
    timeouts = service.app.timeouts if service.app is not None else given.timeouts
    limits = service.limits
    most = limits.concurrency + limits.queue + 1 if limits.concurrency else MOST_ONGOING
    actor: dict[str, Any] = {"num_cpus": number(options.cpus)}
    if not isinstance(given.gpus, tuple) and (gpus := gpus_each(given.gpus)):
        actor["num_gpus"] = number(gpus)
    return {
        "name": service.name,
        **_replicas(given),
        "max_ongoing_requests": most,
        "graceful_shutdown_wait_loop_s": 1,
        "graceful_shutdown_timeout_s": number(service.drain + timeouts.shutdown),
        **_health(given),
        **_rollout(given),
        "ray_actor_options": actor,
    }


def replicas_of(given: Service) -> int:
    """Returns how many replicas a service has at first. Ray counts no CPUs for "auto"."""
    if given.autoscale is not None:
        return given.autoscale.min
    return 1 if given.workers == "auto" else given.workers


def _replicas(given: Service) -> RayDocument:
    scale = given.autoscale
    if scale is None:
        return {"num_replicas": replicas_of(given)}
    return {
        "autoscaling_config": {
            "min_replicas": scale.min,
            "max_replicas": scale.max,
            "target_ongoing_requests": number(scale.target_in_flight),
            "look_back_period_s": number(scale.up_after),
            "upscale_delay_s": number(scale.up_after),
            "downscale_delay_s": number(scale.down_after),
        }
    }


def _health(given: Service) -> RayDocument:
    health = given.health
    if health is None:
        return {"health_check_timeout_s": number(LATEST_CHECK_SECONDS)}
    return {
        "health_check_period_s": number(health.interval),
        "health_check_timeout_s": number(max(LATEST_CHECK_SECONDS, health.timeout)),
    }


def _rollout(given: Service) -> RayDocument:
    """Returns how replicas are replaced. Ray stops the old one first unless it is told not to."""
    count, most = replicas_of(given), given.rollout.max_surge
    if given.rollout.strategy == "recreate":
        return {"max_surge_percent": 0, "rolling_update_percentage": 1.0}
    if given.rollout.strategy == "one-by-one":
        return {"max_surge_percent": 1, "rolling_update_percentage": round(1 / count, 4)}
    percent = float(most.rstrip("%")) if isinstance(most, str) else 100 * most / count
    return {"max_surge_percent": max(1, min(100, math.ceil(percent)))}
