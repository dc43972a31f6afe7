"""What BentoML services declare in their code, asked of their code in a process of its own. Impure.

Nothing of a service is ever imported here: its own interpreter does that, as its own user, in its
own environment.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from servd.config.check import AFTER_EXPANSION, Checked
from servd.config.components import Expansion
from servd.config.declared import DeclaredGraph
from servd.config.files import check_files
from servd.config.load import Loaded
from servd.diagnostics import Diagnostic, in_order
from servd.host import inspect_host, running_as
from servd.plan.build import build
from servd.plan.model import ServicePlan

_AT_ONCE = 4


class DiscoveryError(Exception):
    """The code could not be asked; `trace` is its own traceback."""

    def __init__(self, message: str, trace: str = "") -> None:
        self.trace = trace
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class _Answer:
    graph: DeclaredGraph
    seen: Mapping[str, tuple[int, int] | None]


@dataclass(slots=True)
class Discovery:
    """Remembers the answers until one of the files changes that they came from."""

    _known: dict[tuple[object, ...], _Answer] = field(default_factory=dict)

    def complete(self, loaded: Loaded, environ: Mapping[str, str]) -> Loaded:
        """`loaded` with the components of its BentoML services, and with every mistake that only
        their code shows.
        """
        asked = [name for name, service in loaded.config.services.items() if service.bento]
        if not asked or loaded.errors or loaded.layers is None:
            return loaded
        checked = Checked(loaded.config, loaded.layers)
        plan = build(loaded.config, inspect_host(loaded.config, environ), "/nonexistent")
        graphs: dict[str, DeclaredGraph] = {}
        found: list[Diagnostic] = []
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            answers = {name: pool.submit(self._graph, plan.service(name)) for name in asked}
        for name, answer in answers.items():
            try:
                graphs[name] = answer.result()
            except DiscoveryError as error:
                path = ("services", name, "bento")
                mistake = checked.problem(path, str(error), code="bento")
                found.append(dataclasses.replace(mistake, trace=error.trace))
        if found:
            return dataclasses.replace(
                loaded, diagnostics=tuple(in_order([*loaded.diagnostics, *found]))
            )
        expansion = Expansion(checked, graphs)
        whole = Checked(expansion.config, loaded.layers)
        found = [*loaded.diagnostics, *expansion.diagnostics]
        found += [mistake for rule in AFTER_EXPANSION for mistake in rule(whole)]
        found += check_files(whole)
        found += self._missing(whole, expansion, environ)
        return dataclasses.replace(
            loaded,
            config=expansion.config,
            parts=expansion.parts,
            diagnostics=tuple(in_order(found)),
        )

    def _missing(
        self, whole: Checked, expansion: Expansion, environ: Mapping[str, str]
    ) -> Iterator[Diagnostic]:
        """Variables that the code asks for, and that nobody sets."""
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
        """Raises `DiscoveryError`."""
        environment = tuple(sorted(service.environment.items()))
        key = (service.definition.bento, service.directory, service.python, environment)
        known = self._known.get(key)
        if known is not None and known.seen == _looks(tuple(known.seen)):
            return known.graph
        graph = ask(service)
        self._known[key] = _Answer(graph, _looks(graph.files))
        return graph


def _looks(files: tuple[str, ...]) -> dict[str, tuple[int, int] | None]:
    """What tells one state of each file from another."""
    found: dict[str, tuple[int, int] | None] = {}
    for file in files:
        try:
            status = os.stat(file)
            found[file] = (status.st_mtime_ns, status.st_size)
        except OSError:
            found[file] = None
    return found


def ask(service: ServicePlan) -> DeclaredGraph:
    """What the code of a BentoML service declares. Raises `DiscoveryError`."""
    argv = service.argv_of("servd.worker.describe_bento")
    try:
        done = subprocess.run(
            [*argv, service.definition.bento, service.directory],
            cwd=service.directory,
            env=dict(service.environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=service.startup,
            **running_as(service.identity.account, service.identity.gid),
        )
    except subprocess.TimeoutExpired:
        raise DiscoveryError(f"its code was not imported within {service.startup:g} s") from None
    except OSError as error:
        raise DiscoveryError(f"{service.python} cannot be run: {error.strerror}") from None
    try:
        document = json.loads(done.stdout)
        if "error" not in document:
            return DeclaredGraph.from_document(document)
    except (ValueError, KeyError, TypeError):
        said = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise DiscoveryError(said) from None
    raise DiscoveryError(document["error"], document.get("trace") or "")
