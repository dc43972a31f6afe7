"""BentoML services become services of the configuration: `gw` and, for what its code depends on,
`gw.tokenizer`. Pure.

What counts, from the weakest: servd's defaults, `[defaults]`, what the code declares, and what the
file says of just this service (`[services.gw]`, `[services.gw.components.Tokenizer]`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeVar

from servd.config.bento.declared import RUN_ALIKE, Declared, DeclaredGraph, Part
from servd.config.explain import did_you_mean
from servd.config.model import Config
from servd.config.scalars import shown
from servd.config.service import Defaults, Dependency, Service, Table, Tls
from servd.config.tree import Path
from servd.config.validation_context import ValidationContext
from servd.core.address import Address
from servd.core.diagnostics import Diagnostic

ALIKE_TIMEOUTS = ("startup", "drain")

IDLE_SECONDS = 75.0
"""How long an idle connection to a component is kept. BentoML's client keeps one for 5 seconds, and
so does Uvicorn: whoever closes first must not be the one who listens."""

T = TypeVar("T", bound=Table)

_NOT_IN_NAMES = re.compile(r"[^a-z0-9_-]+")


class Expansion:
    """The configuration with the components of its BentoML services."""

    def __init__(self, checked: ValidationContext, graphs: Mapping[str, DeclaredGraph]) -> None:
        self.checked = checked
        self.parts: dict[str, Part] = {}
        self.diagnostics: list[Diagnostic] = []
        services = dict(checked.config.services)
        for name, graph in graphs.items():
            services |= self._expanded(name, services[name], graph)
        self.config: Config = checked.config.model_copy(update={"services": services})

    def secrets(self, secrets: Collection[Path]) -> frozenset[Path]:
        """The paths of secrets, with those of what components have taken over or been given."""
        found = set(secrets)
        for name, part in self.parts.items():
            entry = name.partition(".")[0]
            if part.is_entry:
                continue
            for way in secrets:
                if way[:2] != ("services", entry):
                    continue
                if way[2:4] == ("components", part.declared.name):
                    found.add(("services", name, *way[4:]))
                elif way[2] in RUN_ALIKE:
                    found.add(("services", name, *way[2:]))
        return frozenset(found)

    def _expanded(self, name: str, given: Service, graph: DeclaredGraph) -> dict[str, Service]:
        if not graph.services:
            unknown = {name: name}
            self.parts[name] = Part(
                Declared(name), True, unknown, keeps_timeout=True, keeps_concurrency=True,
                unknown=True,
            )  # fmt: skip
            return {name: given.model_copy(update={"components": {}})}
        self.diagnostics += self._unknown(name, given, graph)
        names = {each: component_name(name, each, graph.entry) for each in graph.services}
        taken: dict[str, str] = {}
        for each, new in names.items():
            if new in taken:
                message = f"{shown(taken[new])} and {shown(each)} would both be called {new}"
                self.diagnostics.append(
                    self.checked.problem(("services", name, "bento"), message, code="name")
                )
            taken[new] = each
        services: dict[str, Service] = {}
        for each, declared in graph.services.items():
            is_entry = each == graph.entry
            own: Path = ("services", name) if is_entry else ("services", name, "components", each)
            base = given if is_entry else self._component(given, given.components.get(each))
            said = _Said(self.checked, own)
            needs = tuple(Dependency(service=names[other]) for other in declared.depends)
            made = _with_declared(base, declared, said, is_entry=is_entry)
            depends_on = (*(base.depends_on if is_entry else ()), *needs)
            # components stand for themselves now
            made = made.model_copy(update={"depends_on": depends_on, "components": {}})
            services[names[each]] = made
            self.parts[names[each]] = Part(
                declared=declared,
                is_entry=is_entry,
                graph=names,
                keeps_timeout=made.timeouts.request is None,
                keeps_concurrency=made.limits is None or not made.limits.concurrency,
                gpus=0.0 if said("gpus") else declared.gpus,
                tag=graph.tag,
            )
        return services

    def _component(self, given: Service, own: Defaults | None) -> Service:
        """A component before its code has its say."""
        shared = self.checked.config.defaults
        values: dict[str, Any] = {name: getattr(shared, name) for name in Defaults.model_fields}
        values |= {name: getattr(given, name) for name in RUN_ALIKE}
        kept = {name: getattr(given.timeouts, name) for name in ALIKE_TIMEOUTS}
        values["timeouts"] = shared.timeouts.model_copy(update=kept)
        if "keep_alive" not in shared.timeouts.model_fields_set:
            kept = {"keep_alive": IDLE_SECONDS}
            values["timeouts"] = values["timeouts"].model_copy(update=kept)
        values |= {"tls": None, "health": None, "root_path": "", "public_url": ""}
        values |= {"bento": given.bento, "kind": "service"}
        component = Service.model_construct(**values)
        return component if own is None else overlaid(component, own)

    def _unknown(self, name: str, given: Service, graph: DeclaredGraph) -> Iterator[Diagnostic]:
        """Settings for what the code does not have."""
        known = sorted(set(graph.services) - {graph.entry})
        for each in given.components:
            path: Path = ("services", name, "components", each)
            if each == graph.entry:
                message = f"{each} is the service itself: write its keys in [services.{name}]"
                yield self.checked.problem(path, message, at_key=True)
            elif each not in known:
                there = f"its components are {', '.join(known)}" if known else "it has none"
                hint = did_you_mean(each, known) or _same_but_case(each, known) or there
                message = f"{shown(given.bento)} has no component {shown(each)}"
                yield self.checked.problem(path, message, hint, at_key=True, code="unknown_key")


def _same_but_case(word: str, known: list[str]) -> str:
    """`did_you_mean` compares in lower case."""
    close = did_you_mean(word, [each.lower() for each in known])
    found = [each for each in known if f'"{each.lower()}"' in close]
    return f'did you mean "{found[0]}"?' if found else ""


def component_name(service: str, component: str, entry: str) -> str:
    """The name of a component among the services: `gw.tokenizer`."""
    if component == entry:
        return service
    return f"{service}.{_NOT_IN_NAMES.sub('-', component.lower()).strip('-') or 'component'}"


class _Said:
    """Whether the file says something of just this service."""

    def __init__(self, checked: ValidationContext, own: Path) -> None:
        self._checked = checked
        self._own = own

    def __call__(self, *key: str) -> bool:
        return self._checked.layers.own((*self._own, *key))


def _with_declared(base: Service, code: Declared, said: _Said, *, is_entry: bool) -> Service:
    """The service with what its code declares, where the file says nothing else."""
    new: dict[str, Any] = {}
    if code.workers is not None and not said("workers"):
        new["workers"] = "auto" if code.workers == "cpu_count" else code.workers
    if code.backlog is not None and not said("backlog"):
        new["backlog"] = code.backlog
    if code.timeout is not None and not said("timeouts", "request"):
        new["timeouts"] = _without(base.timeouts, "request", None)
    if code.max_concurrency is not None and not said("limits") and base.limits is not None:
        new["limits"] = _without(_without(base.limits, "concurrency", 0), "queue", 0)
    if is_entry:
        if code.port is not None and not said("listen"):
            new["listen"] = (Address("tcp", host=code.host or "0.0.0.0", port=code.port),)  # noqa: S104
        if code.tls is not None and not said("tls"):
            new["tls"] = Tls.model_validate(dict(code.tls))
    return base.model_copy(update=new)


def _without(table: T, key: str, nothing: object) -> T:
    return table.model_copy(update={key: nothing})


def overlaid(base: T, top: Table) -> T:
    """`base` with what was written in `top`: tables key by key, everything else as a whole."""
    new: dict[str, Any] = {}
    for key in top.model_fields_set:
        value, before = getattr(top, key), getattr(base, key)
        if isinstance(value, Table) and isinstance(before, Table):
            value = overlaid(before, value)
        elif isinstance(value, Mapping) and isinstance(before, Mapping):
            value = {**before, **value}
        new[key] = value
    return base.model_copy(update=new)
