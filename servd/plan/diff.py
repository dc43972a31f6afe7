"""Two plans become the changes that lead from one to the other. Pure."""

from __future__ import annotations

import dataclasses
import json
import operator
from collections.abc import Collection, Mapping
from typing import Any

from servd.config.kinds import service_kind
from servd.config.tree import Path, differing_paths, dotted
from servd.core import graph
from servd.core.secrets import MASK, mask_values
from servd.plan.change import Change, ChangeKind, KeyChange
from servd.plan.model import Plan, ServicePlan
from servd.wire.names import DEPENDENCIES
from servd.wire.worker_spec import TlsSpec

_SEVERITY: tuple[ChangeKind, ...] = ("live", "scale", "roll", "rebind", "switch")
_STRICTNESS = ("none", "optional", "required")


def diff(before: Plan, after: Plan, roll: Collection[str] = ()) -> tuple[Change, ...]:
    """The changes that make `before` into `after`, in the order in which they happen.

    What is new or replaced comes in the order of the new graph, dependencies first; then what is
    removed or stopped, in the order of the old graph, dependents first. The services in `roll` are
    replaced even where nothing of them differs: their code may.
    """
    old, new = before.by_name, after.by_name
    changes: dict[str, Change] = {}
    for name in graph.order(after.graph):
        change = _change(old.get(name), new[name], before, after)
        if name in roll and name in old and new[name].workers:
            change = _rolled(change, old[name], new[name])
        if change is not None:
            changes[name] = _interrupting(change)
    for name in reversed(graph.order(after.graph)):  # a task may need another task
        before_whom = _changed_dependents(name, after, changes)
        if before_whom and name not in changes and _runs_again(new[name]):
            why = f"runs before {', '.join(before_whom)}"
            changes[name] = Change(name, "roll", (), why, old[name], new[name])
    ordered = [
        changes[name]
        for name in graph.order(after.graph)
        if name in changes and not changes[name].halts
    ]
    for name in reversed(graph.order(before.graph)):
        if name not in new:
            gone = "no longer in the configuration"
            ordered.append(Change(name, "remove", (), gone, old[name]))
        elif name in changes and changes[name].halts:
            ordered.append(changes[name])
    return tuple(ordered)


def client_auth(plan: ServicePlan) -> str:
    """How clients are asked for certificates; "" without TLS."""
    return plan.tls.client_auth if plan.tls is not None else ""


def overlap_is_unsafe(before: str, new: ServicePlan) -> bool:
    """Whether workers of `new` must not accept from one socket with workers whose `client_auth` is
    `before`: plain beside TLS, or a stricter check beside a laxer one.
    """
    after = client_auth(new)
    if not (before and after):
        return before != after
    return _STRICTNESS.index(after) > _STRICTNESS.index(before)


def patched(plan: Plan, changes: Collection[Change]) -> Plan:
    """The plan that `changes` lead to."""
    services = plan.by_name
    for change in changes:
        if change.after is None:
            del services[change.service]
        else:
            services[change.service] = change.after
    needs = {name: [d.service for d in s.depends_on] for name, s in services.items()}
    ordered = tuple(services[name] for name in graph.order(needs))
    return dataclasses.replace(plan, services=ordered)


def _change(old: ServicePlan | None, new: ServicePlan, before: Plan, after: Plan) -> Change | None:
    if old is None:
        return Change(new.name, "add", (), "new in the configuration", None, new)
    if old == new:
        return None
    keys = _keys(old, new, before, after)
    kind = max((_kind_of(key.key, old, new) for key in keys), key=_SEVERITY.index)
    if kind == "switch" and not _share_an_address(old, new):
        kind = "rebind"
    return Change(new.name, kind, tuple(keys), _why(kind, old, new), old, new)


def _rolled(change: Change | None, old: ServicePlan, new: ServicePlan) -> Change:
    """The change of a service that is to be replaced in any case."""
    if change is not None and (change.kind not in ("live", "scale") or change.starts):
        return change
    keys = change.keys if change is not None else ()
    return Change(new.name, "roll", keys, "asked for", old, new)


def _interrupting(change: Change) -> Change:
    """What would replace workers side by side cannot, where one of both binds its own address."""
    both = (change.before, change.after)
    alone = any(plan is not None and plan.stands_alone for plan in both)
    if change.before is None or not alone or change.kind in ("live", "scale"):
        return change
    return dataclasses.replace(change, kind="interrupt")


def _kind_of(key: str, old: ServicePlan, new: ServicePlan) -> ChangeKind:
    """The kind of a key, where it may depend on the values too."""
    if key == "sockets":
        return "roll"
    kind = service_kind(key)
    if key == "tls.client_auth":
        assert old.tls is not None
        assert new.tls is not None
        return "switch" if overlap_is_unsafe(old.tls.client_auth, new) else "roll"
    if key == "workers" and new.is_task and old.workers and new.workers:
        return "live"  # it runs once, whatever is asked for
    return kind


def _share_an_address(old: ServicePlan, new: ServicePlan) -> bool:
    here, there = ({s.key for s in plan.sockets if not s.internal} for plan in (old, new))
    return bool(here & there)


def _why(kind: ChangeKind, old: ServicePlan, new: ServicePlan) -> str:
    if kind != "switch":
        return ""
    if (old.tls is None) != (new.tls is None):
        return "plain and TLS workers must not accept from one socket"
    return "workers that check clients less must not accept any more"


def _keys(old: ServicePlan, new: ServicePlan, before: Plan, after: Plan) -> list[KeyChange]:
    """The keys that differ: those of the definition, then what follows from outside it."""
    path = ("services", new.name)
    shown = [
        mask_values(plan.definition.model_dump(mode="json"), path, whole.secrets)
        for plan, whole in ((old, before), (new, after))
    ]
    old_values, new_values = (plan.definition.model_dump(mode="json") for plan in (old, new))
    keys = [
        KeyChange(dotted(key), *(_text(_at(values, key)) for values in shown))
        for key in differing_paths(old_values, new_values)
    ]
    keys = [_by_hand(key, old) if key.key == "workers" else key for key in keys]
    known = {key.key.partition(".")[0] for key in keys}
    keys += _outside(old, new, known)
    # whatever else may differ one day, a worker may see
    return keys or [KeyChange("ready", "", "asked in another way")]


def _by_hand(key: KeyChange, old: ServicePlan) -> KeyChange:
    """The number that a file replaces where it was set by hand."""
    workers = old.definition.workers
    if workers in ("auto", old.workers):
        return key
    return dataclasses.replace(key, before=f"{old.workers} (by hand)")


def _at(values: Any, path: Path) -> Any:
    """What stands at `path`; None where there is nothing."""
    for step in path:
        values = values.get(step) if isinstance(values, Mapping) else None
    return values


def _text(value: Any) -> str:
    """A value as a person writes it; nothing for what is not set."""
    if value is None:
        return ""
    if value == MASK:
        return MASK
    return json.dumps(value, ensure_ascii=False)


def _outside(old: ServicePlan, new: ServicePlan, known: Collection[str]) -> list[KeyChange]:
    """What differs though no key of the service says so: by files, other services, the machine.

    `known` are the keys that differ anyway, and with them what follows from them.
    """

    def unexplained(*keys: str) -> bool:
        return not any(key in known for key in keys)

    keys: list[KeyChange] = []
    if unexplained("env", "env_file", "env_passthrough", "user"):
        keys += _environment(old, new)
    if unexplained("depends_on") and _dependencies(old) != _dependencies(new):
        keys.append(KeyChange("depends_on", "", "a dependency is reached at another address"))
    if unexplained("listen", "app", "command", "bento", "activation"):
        keys += [key for key in _sockets(old, new) if unexplained(key.key)]
        if (old.command, old.addresses) != (new.command, new.addresses):
            keys.append(KeyChange("command", "", "another port"))
    if old.tls is not None and new.tls is not None:
        keys += _tls(old.tls, new.tls)
    if unexplained("workers") and old.workers != new.workers:
        keys.append(KeyChange("workers", str(old.workers), str(new.workers)))
    identity_keys = ("user", "group", "umask", "rlimits", "cpu_affinity")
    if unexplained(*identity_keys) and old.identity != new.identity:
        keys.append(KeyChange("user", "", "another account or other CPUs on this machine"))
    if unexplained("bento", "components", "workers") and _in_code(old) != _in_code(new):
        keys.append(KeyChange("bento", "", "its code declares something else"))
    if unexplained("gpus") and any(map(operator.ne, old.gpus, new.gpus)):
        keys.append(KeyChange("gpus", _dealt(old), _dealt(new)))
    if unexplained("python") and old.python != new.python:
        keys.append(KeyChange("python", old.python, new.python))
    return keys


def _dealt(plan: ServicePlan) -> str:
    return " ".join(",".join(ids) for ids in plan.gpus)


def _in_code(plan: ServicePlan) -> object:
    """What a BentoML service's code and its neighbours there say."""
    return (plan.app.bento if plan.app is not None else None, plan.part)


def _tls(old: TlsSpec, new: TlsSpec) -> list[KeyChange]:
    """New content of the files that `tls` names."""
    keys: list[KeyChange] = []
    if (old.certificate, old.key) != (new.certificate, new.key):
        keys.append(KeyChange("tls.certfile", "", "new content"))
    if old.authorities != new.authorities:
        keys.append(KeyChange("tls.ca_certs", "", "new content"))
    return keys


def _dependencies(plan: ServicePlan) -> str:
    return plan.environment.get(DEPENDENCIES, "")


def _environment(old: ServicePlan, new: ServicePlan) -> list[KeyChange]:
    """Variables that came from a file or from the daemon are named, never shown."""
    names = [
        name
        for name in sorted({*old.environment, *new.environment})
        if old.environment.get(name) != new.environment.get(name) and name != DEPENDENCIES
    ]
    key = "env_file" if old.definition.env_file or new.definition.env_file else "env"
    return [KeyChange(key, "", f"other values: {', '.join(names)}")] if names else []


def _sockets(old: ServicePlan, new: ServicePlan) -> list[KeyChange]:
    here, there = ({s.key: s for s in plan.sockets} for plan in (old, new))
    keys: list[KeyChange] = []
    if here.keys() != there.keys():
        keys.append(KeyChange("sockets", ", ".join(here), ", ".join(there)))
    elif any(_owner(here[key]) != _owner(there[key]) for key in here):
        keys.append(KeyChange("socket", "", "open to other users"))
    return keys


def _owner(socket: Any) -> tuple[Any, ...]:
    return (socket.mode, socket.owner, socket.group)


def _runs_again(plan: ServicePlan) -> bool:
    """Whether it is a task that runs before each roll of a service that depends on it."""
    return plan.is_task and plan.workers > 0 and plan.definition.run == "always"


def _changed_dependents(name: str, after: Plan, changes: Mapping[str, Change]) -> list[str]:
    return [
        other
        for other in graph.dependents(after.graph)[name]
        if other in changes
        and changes[other].replaces
        and changes[other].before is not None
        and changes[other].plan.workers
    ]
