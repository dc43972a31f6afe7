"""Discovers the declarations in the code of BentoML services. Impure. The daemon does not import
the code: the interpreter of the service does, as its user and in its environment.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import field

from servd.bento.describe_client import Description, DescriptionError
from servd.config.bento.components import Expansion
from servd.config.bento.declared import DeclaredGraph, GivenAddress, component_paths
from servd.config.check import check
from servd.config.files import check_files_of
from servd.config.load import Loaded
from servd.config.validation_context import ValidationContext
from servd.core.diagnostics import Diagnostic, Severity, in_order
from servd.core.quick_dataclass import dataclass
from servd.host.facts import inspect_host
from servd.host.identity import running_as
from servd.plan.build import build
from servd.plan.model import ServicePlan
from servd.wire.names import DESCRIBE_MODULE
from servd.wire.notify import notify

_MAX_QUERIES = 4
_MAX_ATTEMPTS = 3
"""Attempts for code that changes during a query; the next reload queries it again."""

_STARTUP_MARGIN_SECONDS = 10.0
"""Time until the daemon announces its own start time."""

_FILE_TIME_LAG_NS = 20_000_000
"""Lag of file times behind the clock."""


@dataclass(frozen=True, slots=True)
class _Answer:
    graph: DeclaredGraph
    seen: Mapping[str, tuple[int, int] | None]


@dataclass(slots=True)
class Discovery:
    """Caches declarations until a source file changes. `begun`: a query started early. `address`:
    what a command line gives instead of `listen`. With `near`, a folder above that of the metrics,
    the processes that describe code can become workers, until they are taken (`take_waiting`) for
    that, or given up.
    """

    begun: Description | None = None
    address: GivenAddress | None = None
    near: str | None = None
    _waiting: list[Description] = field(default_factory=list)
    _known: dict[tuple[object, ...], _Answer] = field(default_factory=dict)
    _asking: set[Description] = field(default_factory=set)
    _given_up: bool = False

    def begin(self, loaded: Loaded, environ: Mapping[str, str]) -> Callable[[], Loaded]:
        """Starts `complete` in a thread, and returns a function that waits for its result."""
        if any(service.bento for service in loaded.config.services.values()):
            longest = max(s.startup_seconds for s in loaded.config.services.values())
            extension = f"EXTEND_TIMEOUT_USEC={int((longest + _STARTUP_MARGIN_SECONDS) * 1e6)}"
            notify("STATUS=Reading the declarations of BentoML services", extension)
        pool = ThreadPoolExecutor(1)
        completed = pool.submit(self.complete, loaded, environ)
        pool.shutdown(wait=False)
        return completed.result

    def give_up(self) -> None:
        """Kills running and later queries."""
        self._given_up = True
        asking = [*self._asking, *self.take_waiting()]
        for description in asking:
            description.let_go()  # all at once: each has a moment to end
        for description in asking:
            description.drop()

    def take_waiting(self) -> list[Description]:
        """Returns the processes that wait to become workers. Later ones end by themselves."""
        self.near = None
        found, self._waiting = self._waiting, []
        return found

    def complete(self, loaded: Loaded, environ: Mapping[str, str]) -> Loaded:
        """Returns `loaded` with the components of its BentoML services and the mistakes in their
        code. Code that cannot be imported is a warning: its last declarations are kept, if any.
        """
        asked = [name for name, service in loaded.config.services.items() if service.bento]
        if not asked or loaded.errors or loaded.layers is None:
            return loaded
        checked = ValidationContext(loaded.config, loaded.layers)
        plan = build(loaded.config, inspect_host(loaded.config, environ), "/nonexistent")
        graphs: dict[str, DeclaredGraph] = {}
        found: list[Diagnostic] = []
        with ThreadPoolExecutor(_MAX_QUERIES) as pool:
            answers = {name: pool.submit(self._graph, plan.service(name)) for name in asked}
        for name, answer in answers.items():
            try:
                graphs[name] = answer.result()
            except DescriptionError as error:
                severity: Severity = "error" if error.is_mistake else "warning"
                known = self._known.get(_key(plan.service(name)))
                graphs[name] = known.graph if known is not None else DeclaredGraph()
                path = ("services", name, "bento")
                mistake = checked.problem(path, str(error), severity=severity, code="code")
                found.append(dataclasses.replace(mistake, trace=error.trace))
        expansion = Expansion(checked, graphs, self.address)
        components = component_paths(expansion.parts)
        whole = ValidationContext(expansion.config, loaded.layers, component_paths=components)
        found += [*loaded.diagnostics, *expansion.diagnostics, *check(whole)]
        found += check_files_of(expansion.parts, whole)
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
        """Yields a mistake for each required variable of the code that is not set."""
        if not any(part.declared.env for part in expansion.parts.values()):
            return
        host = inspect_host(whole.config, environ)
        plan = build(whole.config, host, "/nonexistent", parts=expansion.parts)
        for name, part in expansion.parts.items():
            path = ("services", name.partition(".")[0], "bento")
            for variable in part.declared.env:
                if variable not in plan.service(name).environment:
                    need = f"{part.declared.name} requires variable {variable}, which is not set"
                    hint = f'write env = {{ {variable} = "..." }}'
                    yield whole.problem(path, need, hint, code="env")

    def _graph(self, service: ServicePlan) -> DeclaredGraph:
        """Returns the cached or newly queried declarations. Raises `DescriptionError`."""
        known = self._known.get(_key(service))
        if known is not None and known.seen == _file_states(tuple(known.seen)):
            return known.graph
        for _ in range(_MAX_ATTEMPTS):
            begun = time.time_ns() - _FILE_TIME_LAG_NS
            graph, asked = self._ask(service)
            seen = _file_states(graph.files)
            if all(state is not None and state[0] < begun for state in seen.values()):
                self._known[_key(service)] = _Answer(graph, seen)
                if asked.waits:
                    asked.is_current = functools.partial(_is_current, seen)
                    self._waiting.append(asked)
                break
            if asked.waits:  # a file was written during the query
                asked.drop()
        return graph

    def _ask(self, service: ServicePlan) -> tuple[DeclaredGraph, Description]:
        """Returns the declarations, by the query `begun` if it fits, and the query. Raises
        `DescriptionError`.
        """
        argv = (*service.argv_of(DESCRIBE_MODULE), service.definition.bento, service.directory)
        identity = running_as(service.identity.account, service.identity.gid)
        begun, self.begun = self.begun, None
        about = (argv, service.directory, service.definition.bento_arguments)
        if begun is not None and (begun.about != about or identity):
            begun.drop()
            begun = None
        if begun is None:
            near = self.near if not service.preloads else None
            begun = Description(
                *about[:2],
                service.environment,
                about[2],
                near=near,
                level=service.definition.log.level,
                **identity,
            )
        self._asking.add(begun)
        try:
            if self._given_up:
                begun.drop()
            return DeclaredGraph.from_document(begun.document(service.startup)), begun
        except (KeyError, TypeError) as error:
            raise DescriptionError(f"unexpected answer of its code: {error!r}") from None
        finally:
            self._asking.discard(begun)


def _is_current(seen: dict[str, tuple[int, int] | None]) -> bool:
    return _file_states(tuple(seen)) == seen


def _key(service: ServicePlan) -> tuple[object, ...]:
    """Returns what determines the answer in addition to the code."""
    environment = tuple(sorted(service.environment.items()))
    given = service.definition
    return (given.bento, given.bento_arguments, service.directory, service.python, environment)


def _file_states(files: tuple[str, ...]) -> dict[str, tuple[int, int] | None]:
    """Returns time and size of each file, or None for a missing one."""
    found: dict[str, tuple[int, int] | None] = {}
    for file in files:
        try:
            status = os.stat(file)
            found[file] = (max(status.st_mtime_ns, status.st_ctime_ns), status.st_size)
        except OSError:
            found[file] = None
    return found
