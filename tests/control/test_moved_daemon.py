"""A daemon is found after an edit that changes the admin address in the file."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from servd.core import instances
from servd.core.errors import Exit

from support.harness import Servd, ServdProcess, command, free_port

SERVICE = '[services.job]\ncommand = ["sleep", "1000"]\nready = "started"\n'


def started(servd: Servd, config: str) -> ServdProcess:
    """Starts a daemon whose address is set only by its file."""
    servd.write(servd_toml=config + SERVICE)
    daemon = servd.run("--config", "servd.toml", environ={"SERVD_DAEMON__RUNTIME_DIR": None})
    daemon.runtime = Path(daemon.wait_for("servd started")["runtime_dir"])
    daemon.wait_for("servd ready")
    return daemon


def says(daemon: ServdProcess, *arguments: str) -> tuple[int, str]:
    """Returns the exit status and the messages of `servd ARGUMENTS`."""
    done = command(*arguments, "-c", "servd.toml", folder=daemon.folder)
    if done.returncode == 0 and "--json" in arguments:
        assert json.loads(done.stdout)
    return done.returncode, done.stderr.replace("\n", " ")


@pytest.mark.parametrize("before", ["usual", "named"])
def test_it_is_found_where_it_still_answers(servd: Servd, tmp_path: Path, before: str) -> None:
    short = servd._short
    named = f'[daemon]\nruntime_dir = "{short}/first"\n'
    daemon = started(servd, named if before == "named" else "")
    file, port = daemon.folder / "servd.toml", free_port()
    here = f"the running servd (pid {daemon.pid}) listens on unix:{daemon.runtime}/admin.sock until"
    assert says(daemon, "status", "--json") == (0, "")
    for edit, wanted, end in (
        (f'[admin]\nlisten = "unix:{short}/x.sock"\n', f"says unix:{short}/x.sock", "a reload"),
        (f'[admin]\nlisten = "127.0.0.1:{port}"\ntoken = "{"t" * 32}"\n',
         f"says 127.0.0.1:{port}", "a reload"),
        ("[admin]\nenabled = false\n", "has admin.enabled = false", "a reload"),
        (f'[daemon]\nruntime_dir = "{short}/second"\n',
         f"says unix:{short}/second/admin.sock", "a restart"),
    ):  # fmt: skip
        keep = named if before == "named" and "[daemon]" not in edit else ""
        file.write_text(keep + edit + SERVICE)
        path = "servd.toml"
        assert says(daemon, "status", "--json") == (0, f"{path} {wanted}; {here} {end} "), edit
        assert says(daemon, "plan", "--json")[0] == 0
    file.write_text(SERVICE)  # the key is removed
    code, text = says(daemon, "status", "--json")
    assert code == 0
    assert (here in text) == (before == "named")
    assert daemon.stop() == 0
    assert not daemon.runtime.exists()


def test_a_reload_moves_it(servd: Servd) -> None:
    daemon = started(servd, "")
    other = servd._short / "x.sock"
    file = daemon.folder / "servd.toml"
    file.write_text(f'[admin]\nlisten = "unix:{other}"\n{SERVICE}')
    assert says(daemon, "reload")[0] == 0
    assert says(daemon, "status", "--json") == (0, "")
    file.write_text(SERVICE)
    code, text = says(daemon, "status", "--json")
    assert code == 0
    assert f"listens on unix:{other} until a reload" in text
    file.write_text("[admin]\nenabled = false\n" + SERVICE)
    assert says(daemon, "reload")[0] == 0
    for text in ("[admin]\nenabled = false\n", ""):
        file.write_text(text + SERVICE)
        code, said = says(daemon, "status")
        assert code == Exit.FAILED
        assert f"the running servd (pid {daemon.pid}) has admin.enabled = false" in said
    daemon.send(signal.SIGHUP)
    daemon.wait_for("reload finished", reason="SIGHUP")
    assert says(daemon, "status", "--json") == (0, "")
    assert daemon.stop() == 0
    assert not daemon.runtime.exists()


def test_without_a_daemon_a_disabled_api_is_told(tmp_path: Path) -> None:
    (tmp_path / "servd.toml").write_text("[admin]\nenabled = false\n" + SERVICE)
    done = command("status", folder=tmp_path)
    assert done.returncode == Exit.NO_DAEMON
    assert "admin.enabled = false" in done.stderr
    plan = command("plan", folder=tmp_path)
    assert plan.returncode == 0
    assert "a first start would do" in plan.stderr


def test_the_record_of_an_older_servd_is_read(tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    instances.record(str(tmp_path), instances.Record("/x/servd.toml", "unix:/x"))
    path = Path(instances.record_of(str(tmp_path)))
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))
    found = instances.using(str(tmp_path))
    assert found is not None
    assert found.told == instances.Record("/x/servd.toml")
