"""What the schemas of Kubernetes do not see: `problems` looks at objects as a whole."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

Object = dict[str, Any]

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_PORT_NAME = re.compile(r"(?=.{1,15}$)(?=.*[a-z])[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_QUANTITY = re.compile(r"\d+(\.\d+)?(m|[kMGTPE]|[KMGTPE]i)?")
_COUNT = re.compile(r"\d+%")
_EXPANDED = re.compile(r"(?<!\$)\$\(([A-Z_][A-Z0-9_]*)\)")
_WORKLOADS = ("Deployment", "Job")


def problems(objects: list[Object]) -> list[str]:
    """What is wrong with objects that belong together; each mistake begins with its object."""
    found = [*_unique(objects)]
    for one in objects:
        checks = {
            "Deployment": _workload, "Job": _workload, "Service": _service,
            "NetworkPolicy": _policy, "PodDisruptionBudget": _budget,
            "HorizontalPodAutoscaler": _scaler, "ScaledObject": _scaler,
        }  # fmt: skip
        check = checks.get(one["kind"])
        mistakes = [*_names(one), *(check(one, objects) if check is not None else ())]
        found += [f"{one['kind']} {one['metadata']['name']}: {each}" for each in mistakes]
    return found


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    return [one for one in objects if one["kind"] in kinds]


def container_of(one: Object) -> Object:
    (container,) = one["spec"]["template"]["spec"]["containers"]
    found: Object = container
    return found


def _unique(objects: list[Object]) -> Iterator[str]:
    names = [(one["kind"], one["metadata"]["name"]) for one in objects]
    for kind, name in sorted({each for each in names if names.count(each) > 1}):
        yield f"{kind} {name}: defined twice"


def _names(one: Object) -> Iterator[str]:
    if not _LABEL.fullmatch(one["metadata"]["name"]):
        yield "its name is no DNS label"
    for value in one["metadata"].get("labels", {}).values():
        if not _LABEL.fullmatch(value):
            yield f"{value} is no label"


def _pods(objects: list[Object], selector: dict[str, str]) -> list[Object]:
    """The workloads whose pods a selector finds."""
    return [
        one
        for one in of_kind(objects, *_WORKLOADS)
        if selector.items() <= one["spec"]["template"]["metadata"]["labels"].items()
    ]


def _ports(one: Object) -> dict[str, int]:
    ports: list[Object] = container_of(one).get("ports", [])
    return {port["name"]: port["containerPort"] for port in ports}


def _has_port(one: Object, port: str | int) -> bool:
    ports = _ports(one)
    return port in ports or port in ports.values()


def _workload(one: Object, objects: list[Object]) -> Iterator[str]:
    spec = one["spec"]
    template = spec["template"]
    if "selector" in spec and one not in _pods([one], spec["selector"]["matchLabels"]):
        yield "its selector does not match its pods"
    rolling = spec.get("strategy", {}).get("rollingUpdate", {})
    for key, value in rolling.items():
        if not isinstance(value, int) and not _COUNT.fullmatch(value):
            yield f"{key} is no number and no percentage"
    yield from _container(container_of(one), template["spec"], objects)
    yield from _stops_in_time(container_of(one), template["spec"], objects)


def _container(container: Object, pod: Object, objects: list[Object]) -> Iterator[str]:
    if not _LABEL.fullmatch(container["name"]):
        yield "the name of its container is no DNS label"
    for port in container.get("ports", []):
        if not _PORT_NAME.fullmatch(port["name"]):
            yield f"{port['name']} is no name of a port"
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = container.get(kind, {}).get("httpGet")
        ports = {p["name"]: p["containerPort"] for p in container.get("ports", [])}
        if probe and probe["port"] not in (*ports, *ports.values()):
            yield f"{kind} asks a port that the container does not have"
    liveness = container.get("livenessProbe", {}).get("httpGet")
    if liveness and (liveness["path"], liveness["port"]) != ("/livez", "metrics"):
        yield "livenessProbe asks the app"
    for kind, each in container.get("resources", {}).items():
        for name, value in each.items():
            if not _QUANTITY.fullmatch(value):
                yield f"{kind}.{name}: {value} is no quantity"
    if len(container.get("lifecycle", {}).get("preStop", {"sleep": {}})) != 1:
        yield "preStop has not one handler"
    yield from _volumes(container, pod, objects)
    yield from _variables(container, objects)


def _volumes(container: Object, pod: Object, objects: list[Object]) -> Iterator[str]:
    volumes = {each["name"]: each for each in pod.get("volumes", [])}
    for mount in container.get("volumeMounts", []):
        if mount["name"] not in volumes:
            yield f"mounts {mount['name']}, which is no volume"
    maps = {one["metadata"]["name"] for one in of_kind(objects, "ConfigMap")}
    for volume in volumes.values():
        name = volume.get("configMap", {}).get("name")
        if name is not None and name not in maps:
            yield f"there is no ConfigMap {name}"
        secret = volume.get("secret", {}).get("secretName", "secret")
        if not all(_LABEL.fullmatch(part) for part in secret.split(".")):
            yield f"{secret} is no name of a Secret"


def _variables(container: Object, objects: list[Object]) -> Iterator[str]:
    services = {
        one["metadata"]["name"]: [port["port"] for port in one["spec"]["ports"]]
        for one in of_kind(objects, "Service")
    }
    known: dict[str, str] = {}
    for each in container.get("env", []):
        name, value = each["name"], each.get("value", "")
        if name in known:
            yield f"{name} is set twice"
        missing = [found for found in _EXPANDED.findall(value) if found not in known]
        if missing:
            yield f"{name} needs {missing[0]}, which is not set before it"
        known[name] = _EXPANDED.sub(lambda match: known.get(match[1], ""), value)
    for name, value in known.items():
        address = urlsplit(value)
        if name.startswith("SERVD_DEP_") and address.port not in services.get(
            address.hostname or "", []
        ):
            yield f"{name}: {value} is no port of a Service"


def _stops_in_time(container: Object, pod: Object, objects: list[Object]) -> Iterator[str]:
    """The grace holds the preStop sleep and the longest drain of the configuration."""
    sleep = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    mounted = {v.get("configMap", {}).get("name") for v in pod.get("volumes", [])}
    for one in of_kind(objects, "ConfigMap"):
        if one["metadata"]["name"] not in mounted:
            continue
        config = tomllib.loads(one["data"]["servd.toml"])
        services = [one for one in config["services"].values() if "external" not in one]
        tables = [service.get("timeouts", {}) for service in services]
        drain = max(_seconds(table.get("drain", "30s")) for table in tables)
        delay = _seconds(config["daemon"].get("stop_delay", "0s"))
        if pod.get("terminationGracePeriodSeconds", 30) < sleep + delay + drain:
            yield "terminationGracePeriodSeconds ends before preStop and drain"
        if not (sleep or delay):
            yield "nothing waits until endpoints have changed"


def _seconds(text: str | float) -> float:
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
    if not isinstance(text, str):
        return text
    match = re.fullmatch(r"([\d.]+)(ms|s|m|h|d)", text)
    assert match is not None, text
    return float(match[1]) * units[match[2]]


def _service(one: Object, objects: list[Object]) -> Iterator[str]:
    pods = _pods(objects, one["spec"]["selector"])
    if not pods:
        yield "its selector matches no pods"
    for port in one["spec"]["ports"]:
        if not all(_has_port(pod, port["targetPort"]) for pod in pods):
            yield f"targetPort {port['targetPort']} is no port of its pods"


def _policy(one: Object, objects: list[Object]) -> Iterator[str]:
    pods = _pods(objects, one["spec"]["podSelector"]["matchLabels"])
    if not pods:
        yield "its selector matches no pods"
    rules = one["spec"]["ingress"]
    for rule in rules:
        for port in rule["ports"]:
            if not all(_has_port(pod, port["port"]) for pod in pods):
                yield f"{port['port']} is no port of its pods"
        for peer in rule.get("from", []):
            if not _pods(objects, peer["podSelector"]["matchLabels"]):
                yield "lets in pods that there are not"
    if not any("from" not in rule and {"port": "metrics", "protocol": "TCP"} in rule["ports"]
               for rule in rules):  # fmt: skip
        yield "keeps Prometheus out"


def _budget(one: Object, objects: list[Object]) -> Iterator[str]:
    if not _pods(objects, one["spec"]["selector"]["matchLabels"]):
        yield "its selector matches no pods"


def _scaler(one: Object, objects: list[Object]) -> Iterator[str]:
    target = one["spec"]["scaleTargetRef"]["name"]
    deployments = {d["metadata"]["name"]: d for d in of_kind(objects, "Deployment")}
    if target not in deployments:
        yield f"there is no Deployment {target}"
    elif "replicas" in deployments[target]["spec"]:
        yield "its Deployment sets replicas, which each apply would set again"
