"""Expands BentoML services into services: `gw`, and `gw.tokenizer` for a dependency in its code.
Pure. Precedence, weakest first: servd's defaults, `[defaults]`, declarations in the code, the
service's tables in the file (`[services.gw]`, `[services.gw.components.Tokenizer]`).
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, TypeVar

from servd.config.bento.declared import SHARED_KEYS, Declared, DeclaredGraph, GivenAddress, Part
from servd.config.connections import Tls
from servd.config.explain import did_you_mean
from servd.config.model import Config
from servd.config.scalars import shown
from servd.config.service import Defaults, Dependency, Service
from servd.config.table import Table
from servd.config.tree import Path
from servd.config.validation_context import ValidationContext
from servd.core.address import Address
from servd.core.diagnostics import Diagnostic

SHARED_TIMEOUTS = ("startup", "drain")

_KEEP_ALIVE_SECONDS = 75.0
"""Keep-alive of a component. BentoML's client and Uvicorn both close idle connections after 5 s;
the server must not close first."""

_RUNNER_KEEP_ALIVE_SECONDS = 1860.0
"""The same for a runner: BentoML's API server keeps idle connections for 1800 s."""

T = TypeVar("T", bound=Table)

_NOT_IN_NAMES = re.compile(r"[^a-z0-9_-]+")


class Expansion:
    """A configuration with the components of its BentoML services. `address` is what a command line
    gives instead of `listen`.
    """

    def __init__(
        self,
        checked: ValidationContext,
        graphs: Mapping[str, DeclaredGraph],
        address: GivenAddress | None = None,
    ) -> None:
        self.checked = checked
        self._address = address
        self.parts: dict[str, Part] = {}
        self.diagnostics: list[Diagnostic] = []
        services = dict(checked.config.services)
        for name, graph in graphs.items():
            services |= self._expanded(name, services[name], graph)
        self.config: Config = checked.config.model_copy(update={"services": services})

    def secrets(self, secrets: Collection[Path]) -> frozenset[Path]:
        """Returns the paths of secrets, with those that components inherit or set."""
        found = set(secrets)
        components = [(name, part.declared) for name, part in self.parts.items() if "." in name]
        for (name, declared), way in itertools.product(components, secrets):
            if way[:2] != ("services", name.partition(".")[0]):
                continue
            if way[2:4] == ("components", declared.name):
                found.add(("services", name, *way[4:]))
            elif way[2] in SHARED_KEYS:
                found.add(("services", name, *way[2:]))
        return frozenset(found)

    def _expanded(self, name: str, given: Service, graph: DeclaredGraph) -> dict[str, Service]:
        if not graph.services:
            unknown = Declared(name)
            self.parts[name] = Part(unknown, True, {name: name}, True, True, unknown=True)
            listen = self._listen(given, unknown, name)
            return {name: given.model_copy(update={"components": {}, "listen": listen})}
        self.diagnostics += self._unknown(name, given, graph)
        names = {each: component_name(name, each, graph.entry) for each in graph.services}
        taken: dict[str, str] = {}
        for each, new in names.items():
            if new in taken:
                message = f"{shown(taken[new])} and {shown(each)} would both be named {new}"
                mistake = self.checked.problem(("services", name, "bento"), message, code="name")
                self.diagnostics.append(mistake)
            taken[new] = each
        services: dict[str, Service] = {}
        for each, declared in graph.services.items():
            is_entry = each == graph.entry
            own: Path = ("services", name) if is_entry else ("services", name, "components", each)
            base = given if is_entry else self._component(given, declared)
            is_set = functools.partial(_sets, self.checked, own)
            needs = [Dependency(service=names[other]) for other in declared.depends]
            made = _with_declared(base, declared, is_set, is_entry=is_entry)
            # components are services now
            update: dict[str, Any] = {"components": {}}
            update["depends_on"] = (*(base.depends_on if is_entry else ()), *needs)
            if is_entry:
                update["listen"] = self._listen(made, declared, name)
            made = made.model_copy(update=update)
            services[names[each]] = made
            self.parts[names[each]] = Part(
                declared=declared,
                is_entry=is_entry,
                graph=names,
                keeps_timeout=made.timeouts.request is None,
                keeps_concurrency=made.limits is None or not made.limits.concurrency,
                gpus=0.0 if is_set("gpus") else declared.gpus,
                keeps_gpus=not is_set("gpus"),
                tag=graph.tag,
                latest=graph.latest,
                entry_env={} if is_entry else graph.services[graph.entry].env,
                asks_ready=declared.readiness
                and not (declared.command or is_set("health") or self._probes_all),
            )
        return services

    @property
    def _probes_all(self) -> bool:
        return self.checked.is_written(("defaults", "health"))

    def _listen(self, given: Service, declared: Declared, name: str) -> tuple[Address, ...]:
        address = declared.address(self._address)
        is_set = _sets(self.checked, ("services", name), "listen")
        return given.listen if is_set or address is None else (address,)

    def _component(self, given: Service, declared: Declared) -> Service:
        """Returns a component without the declarations of its code."""
        shared = self.checked.config.defaults
        values: dict[str, Any] = {name: getattr(shared, name) for name in Defaults.model_fields}
        values |= {name: getattr(given, name) for name in SHARED_KEYS}
        is_set = given.timeouts.model_fields_set
        kept = {name: getattr(given.timeouts, name) for name in SHARED_TIMEOUTS if name in is_set}
        if "keep_alive" not in shared.timeouts.model_fields_set:
            is_runner = declared.runner
            kept["keep_alive"] = _RUNNER_KEEP_ALIVE_SECONDS if is_runner else _KEEP_ALIVE_SECONDS
        values["timeouts"] = shared.timeouts.model_copy(update=kept)
        values |= {"tls": None, "health": None, "root_path": "", "public_url": ""}
        values |= {"bento": given.bento, "bento_args": given.bento_args, "kind": "service"}
        component = Service.model_construct(**values)
        own = given.components.get(declared.name)
        return component if own is None else overlaid(component, own)

    def _unknown(self, name: str, given: Service, graph: DeclaredGraph) -> Iterator[Diagnostic]:
        """Yields a mistake for each configured component that the code does not have."""
        known = sorted(set(graph.services) - {graph.entry})
        for each in given.components:
            path: Path = ("services", name, "components", each)
            if each == graph.entry:
                message = f"{each} is the service itself: write its keys in [services.{name}]"
                yield self.checked.problem(path, message, at_key=True)
            elif each not in known:
                there = f"components: {', '.join(known)}" if known else "it has no components"
                hint = did_you_mean(each, known) or _same_but_case(each, known) or there
                message = f"{shown(given.bento)} has no component {shown(each)}"
                yield self.checked.problem(path, message, hint, at_key=True, code="unknown_key")


def _same_but_case(word: str, known: list[str]) -> str:
    """Returns the hint for a name that differs in case: `did_you_mean` compares in lower case."""
    close = did_you_mean(word, [each.lower() for each in known])
    found = next((each for each in known if f'"{each.lower()}"' in close), "")
    return f'did you mean "{found}"?' if found else ""


def component_name(service: str, component: str, entry: str) -> str:
    """Returns the service name of a component: `gw.tokenizer`."""
    if component == entry:
        return service
    return f"{service}.{_NOT_IN_NAMES.sub('-', component.lower()).strip('-') or 'component'}"


def _sets(checked: ValidationContext, own: Path, *key: str) -> bool:
    """Returns whether the file sets a key for the service at `own` itself."""
    return checked.layers.own((*own, *key))


def _with_declared(
    base: Service, code: Declared, is_set: Callable[..., bool], *, is_entry: bool
) -> Service:
    """Returns the service with the declarations of its code for keys that the file does not set."""
    new: dict[str, Any] = {}
    if code.workers is not None and not is_set("workers"):
        new["workers"] = "auto" if code.workers == "cpu_count" else code.workers
    if code.backlog is not None and not is_set("backlog"):
        new["backlog"] = code.backlog
    if code.timeout is not None and not is_set("timeouts", "request"):
        new["timeouts"] = base.timeouts.model_copy(update={"request": None})
    if code.max_concurrency is not None and not is_set("limits") and base.limits is not None:
        new["limits"] = base.limits.model_copy(update={"concurrency": 0, "queue": 0})
    if is_entry and code.tls is not None and not is_set("tls"):
        new["tls"] = Tls.model_validate(dict(code.tls))
    return base.model_copy(update=new)


def overlaid(base: T, top: Table) -> T:
    """Returns `base` with the keys written in `top`: tables key by key, other values as a whole."""
    new: dict[str, Any] = {}
    for key in top.model_fields_set:
        value, before = getattr(top, key), getattr(base, key)
        if isinstance(value, Table) and isinstance(before, Table):
            value = overlaid(before, value)
        elif isinstance(value, Mapping) and isinstance(before, Mapping):
            value = {**before, **value}
        new[key] = value
    return base.model_copy(update=new)
