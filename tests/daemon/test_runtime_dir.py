"""The runtime folder: where it is, who may enter, and who holds it."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from servd.core.errors import StartError
from servd.core.instances import Record
from servd.core.paths import default_runtime_dir, instance_name
from servd.core.processes import started_at
from servd.daemon.runtime_dir import RuntimeDir


@pytest.fixture
def short() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sd", dir="/tmp") as folder:
        yield Path(folder)


def test_the_folder_follows_the_service_manager_then_the_user() -> None:
    def chosen(environ: dict[str, str], *, is_root: bool = False) -> str:
        return default_runtime_dir("/etc/servd/servd.toml", environ, is_root=is_root)

    name = instance_name("/etc/servd/servd.toml")
    assert chosen({"RUNTIME_DIRECTORY": "/run/a:/run/b", "XDG_RUNTIME_DIR": "/x"}) == "/run/a"
    assert chosen({"XDG_RUNTIME_DIR": "/run/user/1"}) == f"/run/user/1/servd/{name}"
    assert chosen({"XDG_RUNTIME_DIR": "/run/user/0"}, is_root=True) == f"/run/servd/{name}"
    assert chosen({}).endswith(f"servd-{os.getuid()}/{name}")


def test_two_configs_never_share_a_folder_and_one_config_always_does(short: Path) -> None:
    one, two = short / "a" / "servd.toml", short / "b" / "a" / "servd.toml"
    for path in (one, two):
        path.parent.mkdir(parents=True)
        path.touch()
    assert instance_name(str(one)) != instance_name(str(two))
    assert instance_name(str(one)) == instance_name(f"{one.parent}/../a/./servd.toml")


def test_a_folder_is_named_by_the_path_as_it_was_given(short: Path) -> None:
    (short / "servd.toml").touch()
    (short / "link.toml").symlink_to("servd.toml")
    assert instance_name(str(short / "servd.toml")) != instance_name(str(short / "link.toml"))


def test_of_two_paths_to_one_config_the_second_is_refused(short: Path) -> None:
    config, link = short / "servd.toml", short / "link.toml"
    config.touch()
    link.symlink_to("servd.toml")
    first = RuntimeDir(str(short / "run" / "a"), Record(str(link)), ours=True)
    first.open()
    second = RuntimeDir(str(short / "run" / "b"), Record(str(config)), ours=True)
    # the daemon of this process is told from others by its pid
    (short / "run" / "a" / "private" / "servd.pid").write_text(
        f"{os.getppid()}\n{started_at(os.getppid()) or 0}\n{link}\n"
    )
    message = rf"another servd \(pid {os.getppid()}\) already runs {config}"
    with pytest.raises(StartError, match=message):
        second.open()
    assert sorted(os.listdir(short / "run")) == ["a"]
    first.close()


def test_what_was_removed_is_made_again(short: Path) -> None:
    folder = RuntimeDir(str(short / "run"))
    folder.open()
    assert folder.mend() == []
    for gone in ("s", "private", ""):
        path = str(short / "run" / gone).rstrip("/")
        shutil.rmtree(path)
        assert path in folder.mend()
        assert folder.mend() == []
    with pytest.raises(StartError, match=rf"another servd \(pid {os.getpid()}\)"):
        RuntimeDir(str(short / "run")).open()
    folder.close()
    assert list(short.iterdir()) == []


def test_a_folder_that_another_daemon_has_made_meanwhile_is_left_to_it(short: Path) -> None:
    first, second = RuntimeDir(str(short / "run")), RuntimeDir(str(short / "run"))
    first.open()
    shutil.rmtree(short / "run")
    second.open()
    with pytest.raises(StartError, match="another servd"):
        first.mend()
    first.close()
    assert (short / "run" / "s").exists()
    assert second.mend() == []
    second.close()


def test_state_is_private_and_everything_goes_at_the_end(short: Path) -> None:
    folder = RuntimeDir(str(short / "deep" / "run"))
    folder.open()
    private = short / "deep" / "run" / "private"
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert (private / "servd.pid").read_text().splitlines()[0] == str(os.getpid())
    (short / "deep" / "run" / "s" / "left.sock").touch()
    folder.close()
    assert list(short.iterdir()) == []


def test_a_folder_that_was_there_stays(short: Path) -> None:
    (short / "run").mkdir()
    folder = RuntimeDir(str(short / "run"))
    folder.open()
    folder.close()
    assert list((short / "run").iterdir()) == []


def test_a_second_user_of_the_folder_is_told_the_pid_of_the_first(short: Path) -> None:
    first = RuntimeDir(str(short / "run"))
    first.open()
    with pytest.raises(StartError, match=rf"another servd \(pid {os.getpid()}\)"):
        RuntimeDir(str(short / "run")).open()
    assert (short / "run" / "private" / "servd.pid").exists()
    first.close()


def test_what_a_killed_daemon_left_is_taken_over(short: Path) -> None:
    for name in ("private", "n", "s"):
        (short / "run" / name).mkdir(parents=True)
    (short / "run" / "private" / "servd.pid").write_text("99999\n")
    (short / "run" / "n" / "stale").touch()
    folder = RuntimeDir(str(short / "run"))
    folder.open()
    assert list((short / "run" / "n").iterdir()) == []
    folder.close()


def test_a_folder_of_ours_that_a_killed_daemon_left_goes_at_the_end(short: Path) -> None:
    (short / "run" / "private").mkdir(parents=True)
    folder = RuntimeDir(str(short / "run"), ours=True)
    folder.open()
    folder.close()
    assert list(short.iterdir()) == []


def test_a_path_too_long_for_sockets_is_refused_with_what_to_do(short: Path) -> None:
    with pytest.raises(StartError, match=r"too long for unix sockets: set daemon\.runtime_dir"):
        RuntimeDir(str(short / ("x" * 100))).open()


def test_a_file_in_the_way_is_reported(short: Path) -> None:
    (short / "run").touch()
    with pytest.raises(StartError, match="belongs to another user"):
        RuntimeDir(str(short / "run")).open()


@pytest.mark.parametrize("fault", ["others may write", "a link", "a stranger's"])
def test_a_folder_of_the_default_kind_that_strangers_may_change_is_refused(
    short: Path, fault: str
) -> None:
    parent = short / "servd-1000"
    if fault == "a link":
        (short / "elsewhere").mkdir()
        parent.symlink_to(short / "elsewhere")
    else:
        parent.mkdir(mode=0o700)
    if fault == "others may write":
        parent.chmod(0o777)
    elif fault == "a stranger's":
        if os.geteuid() != 0:
            pytest.skip("only root has folders of strangers")
        os.chown(parent, 65534, 65534)
    with pytest.raises(StartError, match="must belong to you"):
        RuntimeDir(str(parent / "name"), ours=True).open()
    assert list(parent.iterdir()) == []
