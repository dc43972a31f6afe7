"""Changes of `[daemon]`, `[admin]` and `[[hooks]]`: by a reload, or only by a restart."""

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
    """Prepared changes of the daemon's own settings, committed or undone as one."""

    commits: list[AsyncAction] = field(default_factory=list)
    undoes: list[AsyncAction] = field(default_factory=list)

    async def commit(self) -> None:
        """Brings the new settings into force."""
        await _run_all(self.commits)

    async def undo(self) -> None:
        """Undoes the preparations, last first."""
        await _run_all(reversed(self.undoes))


async def _run_all(actions: Iterable[AsyncAction]) -> None:
    """Runs all actions, and logs those that fail."""
    for action in actions:
        try:
            await action()
        except Exception:
            log.exception(Event.INTERNAL_ERROR)


def changed_keys(before: Config, after: Config) -> list[str]:
    """Returns the dotted keys of `[daemon]`, `[admin]` and `[[hooks]]` that differ."""
    old, new = (
        c.model_dump(mode="json", include={"daemon", "admin", "hooks"}) for c in (before, after)
    )
    return [dotted(path) for path in differing_paths(old, new)]


def needs_restart(keys: Iterable[str]) -> tuple[str, ...]:
    """Returns those of `keys` that a running daemon cannot apply."""
    return tuple(key for key in keys if daemon_kind(key) == "restart")
