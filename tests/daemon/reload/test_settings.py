"""What of the daemon's own configuration a reload can change."""

from __future__ import annotations

from typing import Any

from servd.config.model import Config
from servd.daemon.reload.settings import changed_keys, needs_restart


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
