"""What of the daemon's own configuration a reload can change."""

from __future__ import annotations

from typing import Any

from structlog.testing import capture_logs

from servd.config.model import Config
from servd.daemon.reload.settings import (
    AsyncAction,
    SettingsChange,
    changed_keys,
    needs_restart,
)

from support.in_loop import in_loop


def config(**tables: Any) -> Config:
    return Config.model_validate(tables)


def test_changed_keys_are_named_with_dots() -> None:
    before = config(daemon={"watch": True}, admin={"group": ""})
    after = config(daemon={"watch": False, "log": {"level": "debug"}}, admin={"group": "ops"})
    assert changed_keys(before, after) == ["daemon.watch", "daemon.log.level", "admin.group"]
    assert changed_keys(before, before) == []


def test_only_the_runtime_folder_needs_a_restart() -> None:
    before = config()
    after = config(daemon={"runtime_dir": "/run/other", "watch": False})
    assert needs_restart(changed_keys(before, after)) == ("daemon.runtime_dir",)


@in_loop
async def test_prepared_changes_are_committed_in_order_and_undone_in_the_opposite_one() -> None:
    done: list[str] = []
    change = SettingsChange()
    for name in ("log", "admin", "hooks"):
        change.commits.append(step(done, f"commit {name}"))
        change.undoes.append(step(done, f"undo {name}"))
    await change.commit()
    await change.undo()
    assert done == [
        "commit log", "commit admin", "commit hooks", "undo hooks", "undo admin", "undo log",
    ]  # fmt: skip


@in_loop
async def test_one_failure_is_logged_and_leaves_no_other_out() -> None:
    done: list[str] = []

    async def fails() -> None:
        raise RuntimeError("oh")

    with capture_logs() as logs:
        await SettingsChange([step(done, "one"), fails, step(done, "three")]).commit()
        await SettingsChange([], [step(done, "undo"), fails]).undo()
    assert done == ["one", "three", "undo"]
    assert [entry["event"] for entry in logs] == ["internal error"] * 2


def step(done: list[str], name: str) -> AsyncAction:
    async def act() -> None:
        done.append(name)

    return act
