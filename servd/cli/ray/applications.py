"""What runs in Ray Serve, and what changes: values made of the dashboard's answers. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from servd.config.tree import Path, differing_paths, dotted
from servd.core import graph
from servd.core.quick_dataclass import dataclass
from servd.engines.ray.replica_spec import BUILDER
from servd.plan.change import Sign
from servd.plan.render_changes import KeyRow, Row

AppConfig = Mapping[str, Any]
"""The configuration of an application."""

AppChangeKind = Literal["add", "remove", "roll", "scale", "live", "rebind"]

_SCALE = ("num_replicas", "autoscaling_config")
_ROLL = ("args", "runtime_env", "import_path", "ray_actor_options")


@dataclass(frozen=True, slots=True)
class RunningApplication:
    """An application of a cluster. `config` is None unless it was deployed like this."""

    name: str
    status: str
    message: str
    ready: int
    desired: int
    config: AppConfig | None
    details: Mapping[str, Any]

    @property
    def is_ours(self) -> bool:
        """Whether servd has deployed it."""
        return self.config is not None and self.config.get("import_path") == BUILDER

    def has(self, wanted: AppConfig) -> bool:
        """Whether it was deployed with a configuration, to which Ray may have added keys."""
        known = self.config
        return known is not None and all(known.get(key) == wanted[key] for key in wanted)


def running_applications(details: Mapping[str, Any]) -> dict[str, RunningApplication]:
    """Returns the applications of an answer of the dashboard."""
    found: dict[str, RunningApplication] = {}
    for name, each in details["applications"].items():
        deployments = list((each.get("deployments") or {}).values())
        replicas = [r for d in deployments for r in d.get("replicas") or ()]
        found[name] = RunningApplication(
            name=name,
            status=each["status"],
            message="\n".join(filter(None, [each.get("message", ""), *_messages(deployments)])),
            ready=sum(replica.get("state") == "RUNNING" for replica in replicas),
            desired=sum(d.get("target_num_replicas") or 0 for d in deployments),
            config=each.get("deployed_app_config"),
            details=each,
        )
    return found


def _messages(deployments: Sequence[Mapping[str, Any]]) -> list[str]:
    return [str(each.get("message") or "") for each in deployments]


def changes_of(before: Mapping[str, AppConfig], after: Mapping[str, AppConfig]) -> list[Row]:
    """Returns what changes, in the order of application: `after` is in the order of the graph."""
    rows = [_changed(before.get(name), config) for name, config in after.items()]
    gone = [_row(name, "remove", "-", [], "removed from the configuration")
            for name in before if name not in after]  # fmt: skip
    return [row for row in rows if row is not None] + gone


def _changed(old: AppConfig | None, new: AppConfig) -> Row | None:
    name = str(new["name"])
    if old is None:
        return _row(name, "add", "+", [], _summary(new))
    there, here = _flat({key: old[key] for key in new if key in old}), _flat(new)
    keys = [_key(path, _at(there, path), _at(here, path)) for path in differing_paths(there, here)]
    if not keys:
        return None
    return _row(name, _kind([key["key"] for key in keys]), "~", keys, "")


def _row(name: str, kind: AppChangeKind, sign: Sign, keys: list[KeyRow], why: str) -> Row:
    return {"service": name, "kind": kind, "sign": sign, "keys": keys, "why": why, "notes": []}


def _kind(keys: Sequence[str]) -> AppChangeKind:
    roots = {key.partition(".")[0] for key in keys}
    if roots & {*_ROLL}:
        return "roll"
    if "route_prefix" in roots:
        return "rebind"
    return "scale" if roots <= {*_SCALE} else "live"


def _summary(config: AppConfig) -> str:
    (deployment,) = config["deployments"]
    route = config.get("route_prefix") or "internal"
    scale = deployment.get("autoscaling_config")
    if scale is not None:
        return f"{route}, {scale['min_replicas']} to {scale['max_replicas']} replicas"
    count = deployment["num_replicas"]
    return f"{route}, {count} replica{'' if count == 1 else 's'}"


def _flat(config: AppConfig) -> dict[str, Any]:
    """Returns a configuration with the keys of its only deployment beside its own."""
    own = {key: value for key, value in config.items() if key not in ("name", "deployments")}
    for deployment in config.get("deployments") or ():
        own |= {key: value for key, value in deployment.items() if key != "name"}
    return own


def _key(path: Path, before: Any, after: Any) -> KeyRow:
    sign: Sign = "+" if before is None else "-" if after is None else "~"
    return {"sign": sign, "key": dotted(path), "before": _text(before), "after": _text(after)}


def _text(value: Any) -> str:
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _at(values: Any, path: Path) -> Any:
    for step in path:
        values = values.get(step) if isinstance(values, Mapping) else None
    return values


def waves(
    wanted: Mapping[str, AppConfig], needs: Mapping[str, Sequence[str]], changed: Collection[str]
) -> list[list[str]]:
    """Returns the applications that change, in groups: each after those that it needs."""
    known = {name: [need for need in needs[name] if need in wanted] for name in wanted}
    groups = [[name for name in level if name in changed] for level in graph.levels(known)]
    return [group for group in groups if group]
