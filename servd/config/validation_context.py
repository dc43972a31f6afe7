"""What the rules about a configuration look at, and how they say what they find."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from servd.config.bento.declared import RUN_ALIKE
from servd.config.layers import Layers
from servd.config.model import Config
from servd.config.tree import Path, dotted
from servd.core.diagnostics import Diagnostic, Severity


@dataclass(frozen=True, slots=True)
class ValidationContext:
    """What the rules look at: the configuration as far as it is valid, and what was written."""

    config: Config
    layers: Layers
    damaged: bool = False
    component_paths: Mapping[str, Path] = field(default_factory=dict)
    """Where the settings of those services stand that the file does not name: components."""

    def source_path(self, path: Path) -> Path:
        """Where in the file the value stands that counts at `path`."""
        home = (
            self.component_paths.get(str(path[1]))
            if path[:1] == ("services",) and path[1:]
            else None
        )
        if home is None:
            return path
        own: Path = (*home, *path[2:])
        ways: list[Path] = [own, ("defaults", *path[2:])] if path[2:] else [own]
        if path[2:] and path[2] in RUN_ALIKE:
            ways.insert(1, (*home[:2], *path[2:]))
        return next((way for way in ways if self.layers.own(way)), own)

    def is_own(self, path: Path) -> bool:
        """Whether the file says something at `path` of just this service."""
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
        """A diagnostic at the value of `path` (or its key)."""
        path = self.source_path(path)
        node, exact = self.layers.nearest(path)
        if not exact and not isinstance(node.value, dict):
            path = self.layers.resolved(path)  # `listen = ":80"` has no item 0
            exact = True
        place = node.key_place if at_key or not exact else node.place
        return Diagnostic(place, message, dotted(path), hint, severity, code)

    def is_written(self, path: Path) -> bool:
        """Whether somebody wrote something at `path`, valid or not."""
        return self.layers.nearest(path)[1]


Rule = Callable[[ValidationContext], Iterator[Diagnostic]]
