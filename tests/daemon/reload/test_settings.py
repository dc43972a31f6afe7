"""What of the daemon's own configuration a reload can change."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from servd.config.model import Config
from servd.daemon.reload.settings import (
    AsyncAction,
    SettingsChange,
    changed_keys,
    needs_restart,
)

from support.harness import Servd
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


BEFORE = """
[daemon]
shutdown_timeout = "9s"
[admin]
token = "one-secret-token"
[[hooks]]
on = ["reload_failed"]
url = "http://127.0.0.1:9/hook?token=first"
[services.web]
command = ["sleep", "1000"]
"""
AFTER = """
[daemon]
shutdown_timeout = "8s"
log = { level = "debug" }
[admin]
token = "another-secret-token"
[[hooks]]
on = ["reload_failed"]
url = "http://127.0.0.1:9/hook?token=second"
[services.web]
command = ["sleep", "1000"]
"""


def test_changes_of_the_daemon_itself_are_planned_and_reported(servd: Servd) -> None:
    """What `plan` shows is what the reload does."""
    daemon = servd(BEFORE).ready()
    assert daemon.cli("plan", "--detailed-exitcode").returncode == 0
    daemon.edit(AFTER)
    planned = daemon.cli("plan", "--detailed-exitcode")
    assert planned.returncode == 2, planned.stderr
    lines = [" ".join(line.split()) for line in planned.stdout.splitlines()]
    assert lines[-1] == "0 to add, 0 to change, 0 to remove; 4 servd settings"
    assert '~ daemon.log.level live "info" -> "debug"' in lines
    assert '~ daemon.shutdown_timeout live "9s" -> "8s"' in lines
    assert '~ admin.token live "********" -> changed value' in lines
    assert any(line.startswith("~ hooks live [{") for line in lines)
    shown = planned.stdout + daemon.cli("plan", "--json").stdout
    for secret in ("one-secret", "another-secret", "first", "second"):
        assert secret not in shown
    answer = daemon.reload()
    assert answer["outcome"] == "applied"
    kinds = {row["key"]: row["kind"] for row in answer["settings"]}
    assert kinds == {
        "daemon.log.level": "live",
        "daemon.shutdown_timeout": "live",
        "admin.token": "live",
        "hooks": "live",
    }
    assert daemon.cli("plan", "--detailed-exitcode").returncode == 0
    daemon.edit(AFTER.replace('"debug"', '"info"'))
    assert daemon.cli("reload").stdout.endswith(": ~ daemon.log.level live\n")


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("daemon.start_concurrency", "[daemon]\nstart_concurrency = 3"),
        ("daemon.on_start_failure", '[daemon]\non_start_failure = "exit"'),
        ("daemon.gpus", "[daemon]\ngpus = 0"),
        ("daemon.log.format", '[daemon]\nlog.format = "json"'),
        ("admin.metrics", '[admin]\nmetrics = "127.0.0.1:0"'),
        ("hooks", '[[hooks]]\non = ["reload_failed"]\ncommand = ["true"]'),
    ],
)
def test_each_kind_of_setting_is_a_change(servd: Servd, key: str, text: str) -> None:
    service = '\n[services.web]\ncommand = ["sleep", "1000"]\n'
    daemon = servd("[daemon]\nwatch = false\n" + service).ready()
    daemon.edit(text + service)
    found = {row["key"] for row in daemon.ask("GET", "/v1/plan").json()["settings"]}
    assert key in found
