"""Computes the changes that lead from one plan to another. Pure."""

from __future__ import annotations

import dataclasses
import json
import operator
from collections.abc import Callable, Collection, Iterator, Mapping, Set
from typing import Any

from servd.config.kinds import service_kind
from servd.config.service import Service
from servd.config.tree import Path, differing_paths, dotted
from servd.core import graph
from servd.core.secrets import MASK, mask_values
from servd.plan.change import Change, ChangeKind, KeyChange, Sign
from servd.plan.model import Plan, ServicePlan
from servd.wire.names import DEPENDENCIES

_NOTHING: tuple[object, ...] = (None, "", (), [], {})
_SEVERITY: tuple[ChangeKind, ...] = ("live", "scale", "roll", "rebind", "switch")
_Finder = Callable[[ServicePlan, ServicePlan], Iterator[KeyChange]]
_STRICTNESS = ("none", "optional", "required")


def diff(before: Plan, after: Plan, roll: Collection[str] = ()) -> tuple[Change, ...]:
    """Returns the changes that turn `before` into `after`, in the order of their application: new
    and replaced services, dependencies first; then removed and stopped ones, dependents first. The
    services in `roll` are replaced even without differences, since their code may differ.
    """
    old, new = before.by_name, after.by_name
    changes: dict[str, Change] = {}
    for name in graph.order(after.graph):
        change = _change(old.get(name), new[name], before, after)
        if name in roll and name in old and new[name].workers:
            change = _rolled(change, old[name], new[name])
        if change is not None:
            changes[name] = _interrupting(change)
    wanted_by = graph.dependents(after.graph)
    for name in reversed(graph.order(after.graph)):  # a task may need another task
        before_whom = _changed_dependents(wanted_by[name], changes)
        if before_whom and name not in changes and _runs_again(new[name]):
            why = f"runs before {', '.join(before_whom)}"
            changes[name] = Change(name, "roll", (), why, old[name], new[name])
    found = [changes[name] for name in graph.order(after.graph) if name in changes]
    ordered = [change for change in found if not change.halts]
    for name in reversed(graph.order(before.graph)):
        if name not in new:
            gone = "removed from the configuration"
            ordered.append(Change(name, "remove", (), gone, old[name]))
        elif name in changes and changes[name].halts:
            ordered.append(changes[name])
    return tuple(ordered)


def client_auth(plan: ServicePlan) -> str:
    """Returns `tls.client_auth` of a service; "" without TLS."""
    return plan.tls.client_auth if plan.tls is not None else ""


def overlap_is_unsafe(before: str, new: ServicePlan) -> bool:
    """Returns whether workers of `new` must not share a socket with workers whose `client_auth` is
    `before`: plain with TLS, or a stricter check with a laxer one.
    """
    after = client_auth(new)
    if not (before and after):
        return before != after
    return _STRICTNESS.index(after) > _STRICTNESS.index(before)


def patched(plan: Plan, changes: Collection[Change]) -> Plan:
    """Returns `plan` after `changes`."""
    services = plan.by_name
    for change in changes:
        if change.after is None:
            del services[change.service]
        else:
            services[change.service] = change.after
    made = dataclasses.replace(plan, services=tuple(services.values()))
    ordered = tuple(services[name] for name in graph.order(made.graph))
    return dataclasses.replace(plan, services=ordered)


def _change(old: ServicePlan | None, new: ServicePlan, before: Plan, after: Plan) -> Change | None:
    if old is None:
        return Change(new.name, "add", (), "added to the configuration", None, new)
    if old == new or _meaning(old) == _meaning(new):
        return None
    keys = _keys(old, new, before, after)
    kind = max((_kind_of(key.key, old, new) for key in keys), key=_SEVERITY.index)
    if kind == "switch" and not _share_an_address(old, new):
        kind = "rebind"
    return Change(new.name, kind, tuple(keys), _why(kind, old, new), old, new)


def _meaning(plan: ServicePlan) -> ServicePlan:
    """Returns the plan without the parts of its definition that have several spellings: the
    environment has what `env`, `env_file` and `env_passthrough` give.
    """
    definition = plan.definition
    said = definition.model_copy(
        update={
            "env": {},
            "env_file": (),
            "env_passthrough": (),
            "depends_on": tuple(sorted(definition.depends_on, key=lambda each: each.service)),
            "workers": plan.workers if definition.workers == "auto" else definition.workers,
        }
    )
    return dataclasses.replace(plan, definition=said)


def _rolled(change: Change | None, old: ServicePlan, new: ServicePlan) -> Change:
    """Returns the change of a service whose replacement was requested."""
    if change is not None and (change.kind not in ("live", "scale") or change.starts):
        return change
    keys = change.keys if change is not None else ()
    return Change(new.name, "roll", keys, "requested", old, new)


def _interrupting(change: Change) -> Change:
    """Returns an `interrupt` if old and new workers cannot run at once."""
    both = (change.before, change.after)
    alone = any(plan is not None and plan.stands_alone for plan in both)
    if change.before is None or not alone or change.kind in ("live", "scale"):
        return change
    return dataclasses.replace(change, kind="interrupt")


def _kind_of(key: str, old: ServicePlan, new: ServicePlan) -> ChangeKind:
    """Returns the kind of a key, which may depend on the values."""
    if key == "sockets":
        return "roll"
    if key == "tls.client_auth":
        return "switch" if overlap_is_unsafe(client_auth(old), new) else "roll"
    if key.startswith("tls.") and (old.tls is None) != (new.tls is None):
        return "switch"
    if key == "workers" and new.is_task and old.workers and new.workers:
        return "live"  # it always runs once
    return service_kind(key)


def _share_an_address(old: ServicePlan, new: ServicePlan) -> bool:
    here, there = ({s.key for s in plan.sockets if not s.internal} for plan in (old, new))
    return bool(here & there)


def _why(kind: ChangeKind, old: ServicePlan, new: ServicePlan) -> str:
    if kind != "switch":
        return ""
    if (old.tls is None) != (new.tls is None):
        return "workers with and without TLS must not share a socket"
    return "workers with a weaker client check must stop accepting first"


def _keys(old: ServicePlan, new: ServicePlan, before: Plan, after: Plan) -> list[KeyChange]:
    """Returns the keys that differ: those of the definition, then differences from outside it."""
    path = ("services", new.name)
    shown = [
        mask_values(_as_written(plan.definition), path, whole.secrets)
        for plan, whole in ((old, before), (new, after))
    ]
    old_values, new_values = (
        _meaning(plan).definition.model_dump(mode="json") for plan in (old, new)
    )
    keys = [
        key
        for path in differing_paths(old_values, new_values)
        for key in _key_by_key(path, *(_at(values, path) for values in shown))
    ]
    keys = [_with_manual_mark(key, old) if key.key == "workers" else key for key in keys]
    keys += _variables(old, new, before, after)
    known = {key.key.partition(".")[0] for key in keys if key.key not in _OF_THE_DEAL}
    keys += _outside(old, new, known)
    # any other difference may be visible to workers
    return keys or [KeyChange("ready", "", "checked in a different way")]


def _key_by_key(path: Path, before: Any, after: Any) -> list[KeyChange]:
    """Returns the change at `path`: a table that is new, or gone, by each of its keys."""
    for table, other in ((before, after), (after, before)):
        if isinstance(table, Mapping) and table and other in (None, False, {}):
            return [
                change
                for key in table
                for change in _key_by_key(
                    (*path, key),
                    *(each.get(key) if each is table else None for each in (before, after)),
                )
            ]
    return [KeyChange(dotted(path), _text(before), _text(after), _sign(before, after))]


def _sign(before: Any, after: Any) -> Sign:
    return "+" if before in _NOTHING else "-" if after in _NOTHING else "~"


def _as_written(definition: Service) -> dict[str, Any]:
    """Returns the values as a file would have them: a dependency without a condition is a name, and
    a table that has no default has the keys that are given.
    """
    values = definition.model_dump(mode="json")
    given = definition.model_dump(mode="json", exclude_unset=True)
    for key, field in type(definition).model_fields.items():
        if field.default is None and isinstance(values[key], dict) and given.get(key):
            values[key] = given[key]
    values["depends_on"] = [
        each["service"] if each["condition"] == "ready" else each for each in values["depends_on"]
    ]
    return values


def _with_manual_mark(key: KeyChange, old: ServicePlan) -> KeyChange:
    """Marks a manual number of workers that the config replaces."""
    workers = old.definition.workers
    if workers in ("auto", old.workers):
        return key
    return dataclasses.replace(key, before=f"{old.workers} (set manually)")


def _at(values: Any, path: Path) -> Any:
    """Returns the value at `path`, or None."""
    for step in path:
        values = values.get(step) if isinstance(values, Mapping) else None
    return values


def _text(value: Any) -> str:
    """Returns a value as text; "" for None."""
    if value is None:
        return ""
    return MASK if value == MASK else json.dumps(value, ensure_ascii=False)


def _outside(old: ServicePlan, new: ServicePlan, known: Set[str]) -> Iterator[KeyChange]:
    """Yields differences from elsewhere that none of the `known` differing keys explains."""
    for explaining, find in _OUTSIDE:
        if known.isdisjoint(explaining):
            yield from find(old, new)


def _values(key: str, value_of: Callable[[ServicePlan], object], text: str = "") -> _Finder:
    """Returns what yields a change of `key`, with `text` or the values, if the values differ."""

    def find(old: ServicePlan, new: ServicePlan) -> Iterator[KeyChange]:
        before, after = value_of(old), value_of(new)
        if before != after:
            yield KeyChange(key, "", text) if text else KeyChange(key, str(before), str(after))

    return find


_OF_THE_DEAL = ("gpus.memory", "gpus.topology")
"""Keys that explain no other GPUs: they only tell which are dealt."""

_OF_ACCOUNT = ("HOME", "USER", "LOGNAME", "PROMETHEUS_MULTIPROC_DIR")


def _variables(
    old: ServicePlan, new: ServicePlan, before: Plan, after: Plan
) -> Iterator[KeyChange]:
    """Variables of `env` are shown; those from a file or from the daemon are named."""
    named = []
    for name in sorted({*old.environment, *new.environment} - {DEPENDENCIES}):
        values = (old.environment.get(name), new.environment.get(name))
        if values[0] == values[1]:
            continue
        if name in _OF_ACCOUNT and old.definition.user != new.definition.user:
            continue
        plans = ((old, before), (new, after))
        if all(
            plan.environment.get(name) in (None, plan.declared_env.get(name)) for plan, _ in plans
        ):
            path = ("services", new.name, "env", name)
            shown = [
                _text(mask_values(value, path, whole.secrets)) if value is not None else ""
                for value, (_, whole) in zip(values, plans, strict=True)
            ]
            yield KeyChange(f"env.{name}", shown[0], shown[1], _sign(*values))
        else:
            named.append(name)
    if named:
        key = "env_file" if old.definition.env_file or new.definition.env_file else "env"
        yield KeyChange(key, "", f"changed values: {', '.join(named)}")


def _sockets(old: ServicePlan, new: ServicePlan) -> Iterator[KeyChange]:
    here, there = (dict.fromkeys(s.key for s in plan.sockets) for plan in (old, new))
    if here.keys() != there.keys():
        yield KeyChange("sockets", ", ".join(here), ", ".join(there))


def _socket_owners(old: ServicePlan, new: ServicePlan) -> Iterator[KeyChange]:
    here, there = ({s.key: (s.mode, s.owner, s.group) for s in plan.sockets} for plan in (old, new))
    if here.keys() == there.keys() and here != there:
        yield KeyChange("socket", "", "accessible to different users")


def _tls(old: ServicePlan, new: ServicePlan) -> Iterator[KeyChange]:
    """New content of the files that `tls` names."""
    if old.tls is None or new.tls is None:
        return
    if (old.tls.certificate, old.tls.key) != (new.tls.certificate, new.tls.key):
        yield KeyChange("tls.certfile", "", "new content")
    if old.tls.authorities != new.tls.authorities:
        yield KeyChange("tls.ca_certs", "", "new content")


def _gpus(old: ServicePlan, new: ServicePlan) -> Iterator[KeyChange]:
    if any(map(operator.ne, old.gpus, new.gpus)):
        shown = [
            " ".join(",".join(plan.gpu_names.get(gpu, gpu) for gpu in ids) for ids in plan.gpus)
            for plan in (old, new)
        ]
        yield KeyChange("gpus", shown[0], shown[1])


def _identity(old: ServicePlan, new: ServicePlan) -> Iterator[KeyChange]:
    """The CPUs next to the GPUs of more workers are no change for those that run."""
    here, there = (dataclasses.replace(plan.identity, affinity=()) for plan in (old, new))
    cpus = [plan.identity.affinity for plan in (old, new)]
    moved = cpus[0] != cpus[1]
    if old.definition.cpu_affinity == new.definition.cpu_affinity == "gpu":
        moved = any(map(operator.ne, *cpus)) or bool(cpus[0]) != bool(cpus[1])
    if here != there or moved:
        yield KeyChange("user", "", "the account or the CPUs of this machine changed")


def _inputs(old: ServicePlan, new: ServicePlan) -> Iterator[KeyChange]:
    before = dict(old.inputs)
    for path, state in new.inputs:
        if state != before.get(path, state):
            yield KeyChange("inputs", f"{path}: {before[path]}", state)


_ADDRESS_KEYS = ("listen", "app", "command", "bento", "activation")
_OUTSIDE: tuple[tuple[tuple[str, ...], _Finder], ...] = (
    (("depends_on",), _values("depends_on", lambda plan: plan.environment.get(DEPENDENCIES, ""),
        "a dependency has a new address")),
    (_ADDRESS_KEYS, _sockets),
    ((*_ADDRESS_KEYS, "socket"), _socket_owners),
    (_ADDRESS_KEYS, _values("command", lambda p: (p.command, p.addresses), "new port")),
    ((), _tls),
    (("external", "tls"), _values("external", lambda plan: plan.external,
        "new content of certificates")),
    (("inputs",), _inputs),
    (("health",), _values("health", lambda plan: plan.health and plan.health.request,
        "new content of health.request")),
    (("warmup",), _values("warmup", lambda plan: plan.warmup, "new content of its request")),
    (("workers",), _values("workers", lambda plan: plan.workers)),
    (("user", "group", "umask", "rlimits", "cpu_affinity", "gpus"), _identity),
    (("rollout",), _values("rollout.strategy", lambda plan: plan.rollout.strategy)),
    (("rollout",), _values("rollout.max_surge", lambda plan: plan.rollout.max_surge)),
    (("bento", "components", "workers"), _values("bento",
        lambda p: (p.app and p.app.bento, p.part), "the declarations in its code changed")),
    (("gpus",), _gpus),
    (("python",), _values("python", lambda plan: plan.python)),
)  # fmt: skip
"""The keys of a service that explain each difference."""


def _runs_again(plan: ServicePlan) -> bool:
    """Returns whether it is a task that runs before each roll of its dependents."""
    return plan.is_task and plan.workers > 0 and plan.definition.run == "always"


def _changed_dependents(dependents: list[str], changes: Mapping[str, Change]) -> list[str]:
    return [
        other
        for other in dependents
        if other in changes
        and changes[other].replaces
        and changes[other].before is not None
        and changes[other].plan.workers
    ]
