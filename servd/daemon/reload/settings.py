"""What of `[daemon]`, `[admin]` and `[[hooks]]` a reload changes, and what only a restart would."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

import structlog

from servd.config.kinds import daemon_kind
from servd.config.model import Config
from servd.config.tree import differing_paths, dotted
from servd.core.events import Event

log = structlog.get_logger()

AsyncAction = Callable[[], Awaitable[None]]


@dataclass(slots=True)
class SettingsChange:
    """Prepared changes of the daemon's own settings, to be committed or undone as one."""

    commits: list[AsyncAction] = field(default_factory=list)
    undoes: list[AsyncAction] = field(default_factory=list)

    async def commit(self) -> None:
        """Brings the new settings into force."""
        await _all(self.commits)

    async def undo(self) -> None:
        """Gives back what was prepared."""
        await _all(reversed(self.undoes))


async def _all(acts: Iterable[AsyncAction]) -> None:
    """One failure is no reason to leave the others out."""
    for act in acts:
        try:
            await act()
        except Exception:
            log.exception(Event.INTERNAL_ERROR)


def changed_keys(before: Config, after: Config) -> list[str]:
    """Keys of `[daemon]`, `[admin]` and `[[hooks]]` that differ, with dots."""
    old, new = (
        c.model_dump(mode="json", include={"daemon", "admin", "hooks"}) for c in (before, after)
    )
    return [dotted(path) for path in differing_paths(old, new)]


def needs_restart(keys: Iterable[str]) -> tuple[str, ...]:
    """Those of `keys` that a running daemon cannot take over."""
    return tuple(key for key in keys if daemon_kind(key) == "restart")
