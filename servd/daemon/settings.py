"""What of `[daemon]` and `[admin]` a reload changes, and what only a restart would."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from servd.config.kinds import daemon_kind
from servd.config.model import Config

log = structlog.get_logger()

Act = Callable[[], Awaitable[None]]


@dataclass(slots=True)
class SettingsChange:
    """Prepared changes of the daemon's own settings, to be committed or undone as one."""

    changed: bool = False
    commits: list[Act] = field(default_factory=list)
    undoes: list[Act] = field(default_factory=list)

    async def commit(self) -> None:
        """Brings the new settings into force."""
        await _all(self.commits)

    async def undo(self) -> None:
        """Gives back what was prepared."""
        await _all(reversed(self.undoes))


async def _all(acts: Iterable[Act]) -> None:
    """One failure is no reason to leave the others out."""
    for act in acts:
        try:
            await act()
        except Exception:
            log.exception("internal error")


def changed_keys(before: Config, after: Config) -> list[str]:
    """Keys of `[daemon]` and `[admin]` that differ, with dots."""
    found: list[str] = []
    for name in ("daemon", "admin"):
        old = getattr(before, name).model_dump(mode="json")
        new = getattr(after, name).model_dump(mode="json")
        found += _differing(name, old, new)
    return found


def needs_restart(before: Config, after: Config) -> tuple[str, ...]:
    """Those of `changed_keys` that a running daemon cannot take over."""
    return tuple(key for key in changed_keys(before, after) if daemon_kind(key) == "restart")


def _differing(key: str, old: Any, new: Any) -> list[str]:
    if old == new:
        return []
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return [k for name in old for k in _differing(f"{key}.{name}", old[name], new[name])]
    return [key]
