"""What is applied is what was seen: a plan is saved, and refused once it is another."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from servd.core.errors import Exit

from support.apps import PLAIN
from support.harness import Servd, ServdProcess, command

CONFIG = """
[services.web]
app = "main:app"
listen = "127.0.0.1:0"
env_file = "web.env"
env = {{ V = "{v}", W = "${{file:word}}" }}
{more}
[services.job]
command = ["sleep", "1000"]
ready = "started"
"""


def started(servd: Servd) -> ServdProcess:
    (servd.folder / "web.env").write_text("A=1\n")
    (servd.folder / "word").write_text("one")
    return servd(CONFIG.format(v=1, more=""), main_py=PLAIN).ready()


def test_a_saved_plan_is_applied_once_and_nothing_else_is(servd: Servd) -> None:
    daemon = started(servd)
    daemon.edit(CONFIG.format(v=2, more=""))
    saved = daemon.cli("plan", "-o", "the.plan")
    assert saved.returncode == 0
    assert '~ env.V  "1" -> "2"' in saved.stdout
    assert saved.stderr == "saved: `servd reload the.plan` applies exactly this plan\n"
    assert stat.S_IMODE((servd.folder / "the.plan").stat().st_mode) == 0o600
    done = daemon.cli("reload", "the.plan")
    assert (done.returncode, done.stdout.partition(":")[2]) == (0, " ~ web roll\n")
    assert daemon.get("web").text == "2"
    again = daemon.cli("reload", "the.plan")
    assert again.returncode == Exit.FAILED
    assert "the running state changed after it was read" in again.stderr


EDITS: dict[str, Callable[[ServdProcess], object]] = {
    "the file": lambda daemon: daemon.edit(CONFIG.format(v=3, more="")),
    "a comment": lambda daemon: daemon.edit(CONFIG.format(v=2, more="# new")),
    "an env file": lambda daemon: (daemon.folder / "web.env").write_text("A=2\n"),
    "what is read": lambda daemon: (daemon.folder / "word").write_text("two"),
    "what runs": lambda daemon: daemon.act("job", "restart"),
    "a manual scale": lambda daemon: daemon.act("web", "scale", workers=2),
}


def test_a_plan_of_something_else_is_refused(servd: Servd) -> None:
    daemon = started(servd)
    for name, edit in EDITS.items():
        (servd.folder / "web.env").write_text("A=1\n")
        (servd.folder / "word").write_text("one")
        daemon.edit(CONFIG.format(v=2, more=""))
        assert daemon.cli("plan", "-o", "the.plan").returncode == 0
        edit(daemon)
        refused = daemon.cli("reload", "the.plan")
        assert refused.returncode == Exit.FAILED, name
        runs = name in ("what runs", "a manual scale")
        reason = "running state changed" if runs else "configuration or a file that it reads"
        assert reason in refused.stderr, name
        assert "fetch the state, then try again" in refused.stderr
        assert daemon.get("web").text == "1"
    last = daemon.lines("reload refused")[-1]
    assert "changed after" in last["error"]


def test_an_etag_is_expected(servd: Servd) -> None:
    daemon = started(servd)
    pid = daemon.pids("job")
    etag = json.loads(daemon.cli("plan", "--roll", "--json").stdout)["etag"]
    assert daemon.cli("reload", "--expect", etag).returncode == Exit.FAILED  # it rolls nothing
    assert daemon.pids("job") == pid
    assert daemon.cli("reload", "--roll", "--expect", f'"{etag}"').returncode == 0
    assert daemon.pids("job") != pid
    status = daemon.ask("GET", "/v1/status").headers["etag"]
    daemon.edit(CONFIG.format(v=2, more=""))
    assert daemon.cli("reload", "--expect", status).returncode == 0
    assert daemon.cli("reload", "--expect", status).returncode == Exit.FAILED


def test_a_roll_is_planned_and_saved_as_one(servd: Servd) -> None:
    daemon = started(servd)
    plan = daemon.cli("plan", "--roll", "-o", "roll.plan")
    assert "~ web  roll  requested" in plan.stdout
    pids = daemon.pids("web") + daemon.pids("job")
    assert daemon.cli("reload", "roll.plan").returncode == 0
    assert not set(pids) & {*daemon.pids("web"), *daemon.pids("job")}


def test_a_manual_setting_is_told_where_it_ends(servd: Servd) -> None:
    daemon = started(servd)
    daemon.act("web", "scale", workers=2)
    daemon.edit(CONFIG.format(v=1, more="workers = 2"))
    ends = "! web: manual setting of 2 workers ends: the config says 2\n"
    assert ends in daemon.cli("plan").stdout
    done = daemon.cli("reload")
    assert done.returncode == 0
    assert ends in done.stderr
    assert daemon.lines("reload finished")[-1]["by_hand_ends"] == ["web"]
    daemon.act("web", "scale", workers=1)
    daemon.edit(CONFIG.format(v=1, more="").replace("services.web", "services.other"))
    assert (
        "! web: manual setting of 1 worker ends: service removed\n" in daemon.cli("reload").stderr
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["servd.toml"], "servd.toml is not a saved plan (see `servd plan -o`)"),
        (["gone.plan"], "cannot read gone.plan: No such file or directory"),
        (["servd.toml", "--roll"], "cannot be combined with a saved plan"),
        (["--expect", "a b"], "--expect must be an ETag"),
    ],
)
def test_what_is_no_plan_is_refused(tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "servd.toml").write_text(CONFIG.format(v=1, more=""))
    done = command("reload", *arguments, folder=tmp_path)
    assert done.returncode != 0
    assert message in done.stderr


def test_a_first_start_is_not_saved(tmp_path: Path) -> None:
    (tmp_path / "servd.toml").write_text('[services.job]\ncommand = ["true"]\n')
    done = command("plan", "-o", "x.plan", folder=tmp_path)
    assert done.returncode == Exit.NO_DAEMON
    assert "only the plan of a running servd can be saved" in done.stderr
    assert not (tmp_path / "x.plan").exists()
