"""What BentoML services declare in their code, asked of their code in a process of its own. Impure.

Nothing of a service is ever imported here: its own interpreter does that, as its own user, in its
own environment.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from servd.bento.describe_client import MODULE, Description, DescriptionError
from servd.config.bento.components import Expansion
from servd.config.bento.declared import DeclaredGraph, component_paths
from servd.config.check import check
from servd.config.files import check_files_of
from servd.config.load import Loaded
from servd.config.unsupported_keys import not_supported_yet
from servd.config.validation_context import ValidationContext
from servd.core.diagnostics import Diagnostic, Severity, in_order
from servd.host.facts import inspect_host
from servd.host.identity import running_as
from servd.plan.build import build
from servd.plan.model import ServicePlan
from servd.wire.notify import notify

_AT_ONCE = 4
_MOST_TIMES = 3
"""Code that is edited faster than it can be asked is asked again by the next reload."""

_AFTERWARDS = 10.0
"""Seconds until the daemon itself says how long it needs."""

_CLOCK_STEP = 20_000_000
"""Nanoseconds by which the times of files may lag behind the clock."""


@dataclass(frozen=True, slots=True)
class _Answer:
    graph: DeclaredGraph
    seen: Mapping[str, tuple[int, int] | None]


@dataclass(slots=True)
class Discovery:
    """Remembers the answers until one of the files changes that they came from. `begun` is who was
    asked before the configuration was read.
    """

    begun: Description | None = None
    _known: dict[tuple[object, ...], _Answer] = field(default_factory=dict)
    _asking: set[Description] = field(default_factory=set)
    _given_up: bool = False

    def begin(self, loaded: Loaded, environ: Mapping[str, str]) -> Callable[[], Loaded]:
        """`complete`, begun in a thread: what is returned waits for it."""
        if any(service.bento for service in loaded.config.services.values()):
            longest = max(s.timeouts.startup for s in loaded.config.services.values())
            extension = f"EXTEND_TIMEOUT_USEC={int((longest + _AFTERWARDS) * 1e6)}"
            notify("STATUS=Asking BentoML services what they declare", extension)
        pool = ThreadPoolExecutor(1)
        completed = pool.submit(self.complete, loaded, environ)
        pool.shutdown(wait=False)
        return completed.result

    def give_up(self) -> None:
        """Ends whatever is being asked, for good."""
        self._given_up = True
        for description in list(self._asking):
            description.drop()

    def complete(self, loaded: Loaded, environ: Mapping[str, str]) -> Loaded:
        """`loaded` with the components of its BentoML services, and with every mistake that only
        their code shows.

        Code that cannot be imported is a warning: what it said before stands, or else nothing is
        known of it, and its workers say why they cannot start.
        """
        asked = [name for name, service in loaded.config.services.items() if service.bento]
        if not asked or loaded.errors or loaded.layers is None:
            return loaded
        checked = ValidationContext(loaded.config, loaded.layers)
        plan = build(loaded.config, inspect_host(loaded.config, environ), "/nonexistent")
        graphs: dict[str, DeclaredGraph] = {}
        found: list[Diagnostic] = []
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            answers = {name: pool.submit(self._graph, plan.service(name)) for name in asked}
        for name, answer in answers.items():
            try:
                graphs[name] = answer.result()
            except DescriptionError as error:
                severity: Severity = "error" if error.is_mistake else "warning"
                graphs[name] = self._last(plan.service(name))
                mistake = checked.problem(
                    ("services", name, "bento"), str(error), severity=severity, code="code"
                )
                found.append(dataclasses.replace(mistake, trace=error.trace))
        expansion = Expansion(checked, graphs)
        whole = ValidationContext(
            expansion.config, loaded.layers, component_paths=component_paths(expansion.parts)
        )
        found += [*loaded.diagnostics, *expansion.diagnostics, *check(whole)]
        found += check_files_of(expansion.parts, whole)
        found += not_supported_yet(whole)
        found += self._missing(whole, expansion, environ)
        return dataclasses.replace(
            loaded,
            config=expansion.config,
            parts=expansion.parts,
            secrets=expansion.secrets(loaded.secrets),
            diagnostics=tuple(in_order(found)),
        )

    def _missing(
        self, whole: ValidationContext, expansion: Expansion, environ: Mapping[str, str]
    ) -> Iterator[Diagnostic]:
        """Variables that the code asks for, and that nobody sets."""
        if not any(part.declared.env for part in expansion.parts.values()):
            return
        host = inspect_host(whole.config, environ)
        plan = build(whole.config, host, "/nonexistent", parts=expansion.parts)
        for name, part in expansion.parts.items():
            there = plan.service(name).environment
            for variable in part.declared.env:
                if variable not in there:
                    yield whole.problem(
                        ("services", name.partition(".")[0], "bento"),
                        f"{part.declared.name} needs the variable {variable}, which is not set",
                        f'write env = {{ {variable} = "..." }}',
                        code="env",
                    )

    def _graph(self, service: ServicePlan) -> DeclaredGraph:
        """Raises `DescriptionError`."""
        known = self._known.get(_key(service))
        if known is not None and known.seen == _looks(tuple(known.seen)):
            return known.graph
        for _ in range(_MOST_TIMES):
            begun = time.time_ns() - _CLOCK_STEP
            graph = self._ask(service)
            seen = _looks(graph.files)
            if all(state is not None and state[0] < begun for state in seen.values()):
                self._known[_key(service)] = _Answer(graph, seen)
                break  # else a file was written while it was being read
        return graph

    def _last(self, service: ServicePlan) -> DeclaredGraph:
        """What the code said last, when it could be imported."""
        known = self._known.get(_key(service))
        return known.graph if known is not None else DeclaredGraph()

    def _ask(self, service: ServicePlan) -> DeclaredGraph:
        """What the code of a BentoML service declares; of who was `begun` to be asked already,
        where that is just the same. Raises `DescriptionError`.
        """
        argv = (*service.argv_of(MODULE), service.definition.bento, service.directory)
        identity = running_as(service.identity.account, service.identity.gid)
        begun, self.begun = self.begun, None
        if begun is None or (begun.argv, begun.folder) != (argv, service.directory) or identity:
            begun = Description(argv, service.directory, service.environment, **identity)
        self._asking.add(begun)
        try:
            if self._given_up:
                begun.drop()
            return DeclaredGraph.from_document(begun.document(service.startup))
        except (KeyError, TypeError) as error:
            raise DescriptionError(f"it said what is not understood: {error!r}") from None
        finally:
            self._asking.discard(begun)


def _key(service: ServicePlan) -> tuple[object, ...]:
    """What may make the answer another one, beside the code."""
    environment = tuple(sorted(service.environment.items()))
    return (service.definition.bento, service.directory, service.python, environment)


def _looks(files: tuple[str, ...]) -> dict[str, tuple[int, int] | None]:
    """What tells one state of each file from another."""
    found: dict[str, tuple[int, int] | None] = {}
    for file in files:
        try:
            status = os.stat(file)
            found[file] = (max(status.st_mtime_ns, status.st_ctime_ns), status.st_size)
        except OSError:
            found[file] = None
    return found
