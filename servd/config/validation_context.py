"""The input of the rules about a configuration, and the constructor of their diagnostics."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field

from servd.config.bento.declared import SHARED_KEYS
from servd.config.layers import Layers
from servd.config.model import Config
from servd.config.redact import redact
from servd.config.tree import Path, dotted
from servd.core.diagnostics import Diagnostic, Severity
from servd.core.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class ValidationContext:
    """The valid part of a configuration, and the layers that it was read from."""

    config: Config
    layers: Layers
    damaged: bool = False
    component_paths: Mapping[str, Path] = field(default_factory=dict)
    """Paths in the file of the settings of components, which the file does not name as services."""

    _programs: dict[tuple[str, str | None], str | None] = field(
        default_factory=dict, repr=False, compare=False
    )

    def which(self, program: str, path: str | None) -> str | None:
        """Returns where a program is on `path`; looks once for each of them."""
        key = (program, path)
        if key not in self._programs:
            self._programs[key] = shutil.which(program, path=path)
        return self._programs[key]

    def source_path(self, path: Path) -> Path:
        """Returns the path in the file of the value in force at `path`."""
        home = self.component_paths.get(str(path[1])) if path[1:] else None
        if home is None or path[0] != "services":
            return path
        own: Path = (*home, *path[2:])
        ways: list[Path] = [own, ("defaults", *path[2:])] if path[2:] else [own]
        if path[2:] and path[2] in SHARED_KEYS:
            ways.insert(1, (*home[:2], *path[2:]))
        return next((way for way in ways if self.layers.own(way)), own)

    def is_own(self, path: Path) -> bool:
        """Returns whether the file sets `path` for this service itself."""
        home = self.component_paths.get(str(path[1]))
        return self.layers.own((*home, *path[2:]) if home is not None else path)

    def problem(
        self,
        path: Path,
        message: str,
        hint: str = "",
        *,
        at_key: bool = False,
        severity: Severity = "error",
        code: str = "invalid",
    ) -> Diagnostic:
        """Returns a diagnostic at the value of `path` (or at its key)."""
        path = self.source_path(path)
        node, exact = self.layers.nearest(path)
        if not exact and not isinstance(node.value, dict):
            path, exact = self.layers.resolved(path), True  # `listen = ":80"` has no item 0
        place = node.key_place if at_key or not exact else node.place
        message, hint = redact(message, node), redact(hint, node)
        return Diagnostic(place, message, dotted(path), hint, severity, code)

    def is_written(self, path: Path) -> bool:
        """Returns whether `path` was written, valid or not."""
        return self.layers.nearest(path)[1]


Rule = Callable[[ValidationContext], Iterator[Diagnostic]]
