"""Root is told who else may change what it reads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from servd.config.load import load

from support.harness import Servd, command

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="root's configuration")
NOBODY = 65534


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "app.env").write_text("A=1\n")
    (tmp_path / "token").write_text("x")
    path = tmp_path / "servd.toml"
    path.write_text(
        'include = "conf.d/*.toml"\n[services.web]\ncommand = ["true"]\n'
        'env_file = "app.env"\nenv.TOKEN = "${file:token}"\n'
    )
    return path


def warnings(file: Path) -> list[str]:
    return [d.summary() for d in load(str(file), {}).warnings]


def test_files_of_root_alone_are_not_worth_a_word(file: Path) -> None:
    assert warnings(file) == []


@pytest.mark.parametrize("name", ["servd.toml", "app.env", "token", "conf.d"])
def test_another_owner_is_named(file: Path, name: str) -> None:
    """A service's own environment, a secret and the folder of an include count too."""
    os.chown(file.parent / name, NOBODY, 0)
    (said,) = warnings(file)
    where = f"user nobody can change {file.parent / name} (chown root {file.parent / name})"
    assert said.endswith(f"warning: servd runs as root, but {where}")


@pytest.mark.parametrize(("mode", "who"), [(0o666, "every user"), (0o664, "group 65534")])
def test_a_mode_that_lets_others_write_is_named(file: Path, mode: int, who: str) -> None:
    os.chown(file, 0, NOBODY)
    file.chmod(mode)
    (said,) = warnings(file)
    assert f"{who} can change {file} (chmod go-w" in said


def test_the_group_of_root_is_root(file: Path) -> None:
    file.chmod(0o664)
    assert warnings(file) == []


def test_the_way_to_the_file_counts(file: Path, tmp_path: Path) -> None:
    """Whoever owns a folder puts another file in the place of ours, or turns a link."""
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", NOBODY, NOBODY)
    link = tmp_path / "theirs" / "servd.toml"
    link.symlink_to(file)
    (said,) = warnings(link)
    assert f"user nobody can change {tmp_path / 'theirs'} " in said


@pytest.mark.parametrize("name", ["token/x.env", "a" * 300])
def test_what_cannot_be_there_is_said_by_the_check_of_files(file: Path, name: str) -> None:
    file.write_text(f'[services.web]\ncommand = ["true"]\nenv_file = "{name}"\n')
    (found,) = load(str(file), {}).diagnostics
    assert found.message.startswith(f"cannot read {file.parent / name}: ")


def test_doctor_check_and_the_start_say_it(servd: Servd, file: Path, tmp_path: Path) -> None:
    os.chown(file, NOBODY, 0)
    what = f"servd runs as root, but user nobody can change {file}"
    assert f"warning: {what}" in command("doctor", folder=tmp_path).stdout
    checked = command("check", folder=tmp_path)
    assert checked.returncode == 0
    assert what in checked.stderr
    daemon = servd.run("--config", str(file))
    assert what in daemon.wait_for("config warning")["warning"]
