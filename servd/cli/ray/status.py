"""The status of Ray Serve, as rows of the table of `servd status`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from servd.cli.ray.applications import RunningApplication, running_applications
from servd.cli.ray.dashboard import Dashboard, token_of
from servd.cli.ray.deployment import last_lines
from servd.core.errors import ServdError

_STATES = {
    "NOT_STARTED": "waiting", "DEPLOY_FAILED": "failed", "UNHEALTHY": "degraded",
    "DELETING": "stopping",
}  # fmt: skip
_NO_FIGURES: Mapping[str, Any] = dict.fromkeys((
    "requests", "rps", "rps_4xx", "rps_5xx", "error_rate", "p50_ms", "p99_ms", "last_exit",
    "by_hand", "coming", "certificate_expires_at", "autoscale",
))  # fmt: skip


def ray_status(address: str, name: str | None = None) -> dict[str, Any]:
    """Returns the status of a cluster, of all services or one. Raises `ServdError`."""
    dashboard = Dashboard(address, token_of(os.environ))
    version, details = dashboard.version(), dashboard.details()
    found = running_applications(details)
    if name is not None and name not in found:
        known = ", ".join(found) or "none"
        raise ServdError(f'unknown service "{name}". Services: {known}')
    chosen = found if name is None else {name: found[name]}
    return {
        "engine": "ray",
        "version": version,
        "address": dashboard.address,
        "services": [service_row(each, details) for each in chosen.values()],
    }


def service_row(each: RunningApplication, details: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an application as a service of the status."""
    config = each.config or {}
    arguments = config.get("args") or {}
    is_well = each.status in ("RUNNING", "DEPLOYING")
    return {
        **_NO_FIGURES,
        "name": each.name,
        "kind": "service",
        "state": _state(each),
        "generation": arguments.get("digest", "-"),
        "since": _time(each.details.get("last_deployed_time_s")),
        "listen": _addresses(each, details),
        "bound_by": "servd",
        "binds_itself": [],
        "public_url": "",
        "depends_on": list(arguments.get("depends") or ()),
        "workers": {"desired": each.desired, "ready": each.ready},
        "processes": _processes(each, arguments.get("digest", "-")),
        "draining": [],
        "restarts": 0,
        "crash_loop": False,
        "error": None if is_well else last_lines(each.message),
    }


def _state(each: RunningApplication) -> str:
    if each.status == "RUNNING":
        return "ready" if each.ready >= each.desired else "degraded"
    if each.status == "DEPLOYING":
        return "rolling" if each.ready else "starting"
    return _STATES.get(each.status, each.status.lower())


def _addresses(each: RunningApplication, details: Mapping[str, Any]) -> list[str]:
    route = each.details.get("route_prefix")
    if not route:
        return []
    options = details.get("http_options") or {}
    scheme = "https" if options.get("ssl_certfile") else "http"
    where = f"{options.get('host', '127.0.0.1')}:{options.get('port', 8000)}"
    return [f"{scheme}://{where}{route.rstrip('/')}"]


def _processes(each: RunningApplication, generation: str) -> list[dict[str, Any]]:
    replicas = [
        replica
        for deployment in (each.details.get("deployments") or {}).values()
        for replica in deployment.get("replicas") or ()
        if replica.get("pid")
    ]
    return [
        {
            **_NO_FIGURES,
            "pid": replica["pid"],
            "worker": index,
            "state": "ready" if replica["state"] == "RUNNING" else replica["state"].lower(),
            "generation": generation,
            "started_at": _time(replica.get("start_time_s")),
            "in_flight": None,
            "rss_bytes": None,
            "cpu_percent": None,
            "gpus": [],
        }
        for index, replica in enumerate(replicas)
    ]


def _time(seconds: float | None) -> str:
    return datetime.fromtimestamp(seconds or 0, UTC).isoformat()
