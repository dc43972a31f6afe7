"""Changes of `[daemon]`, `[admin]` and `[[hooks]]`: by a reload, or only by a restart."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import structlog

from servd.config.effective import effective
from servd.config.kinds import daemon_kind
from servd.config.load import Loaded
from servd.config.model import Config
from servd.config.tree import differing_paths, dotted
from servd.core.events import Event
from servd.plan.change import Sign
from servd.plan.render_changes import SettingRow

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


def setting_rows(before: Loaded, after: Loaded) -> tuple[SettingRow, ...]:
    """Returns the changes of `[daemon]`, `[admin]` and `[[hooks]]`, secrets masked."""
    changed = changed_keys(before.config, after.config)
    if not changed:
        return ()
    old, new = (effective(each, everything=True) for each in (before, after))
    return tuple(_row(key, _shown(old, key), _shown(new, key)) for key in changed)


def _row(key: str, before: str, after: str) -> SettingRow:
    sign: Sign = "~" if before and after else "+" if after else "-"
    return SettingRow(sign=sign, key=key, kind=daemon_kind(key), before=before, after=after)


def _shown(values: Any, key: str) -> str:
    for step in key.split("."):
        values = values.get(step) if isinstance(values, dict) else None
    return "" if values in (None, "", [], {}) else json.dumps(values, ensure_ascii=False)


def needs_restart(keys: Iterable[str]) -> tuple[str, ...]:
    """Returns those of `keys` that a running daemon cannot apply."""
    return tuple(key for key in keys if daemon_kind(key) == "restart")
