"""The quick look finds the same daemon as loading the configuration, or finds none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from servd.control.client import AdminClient
from servd.control.locate import client_of, quick_target
from servd.core.errors import ServdError

SERVICE = '[services.web]\ncommand = ["true"]\n'


@pytest.mark.parametrize(
    ("text", "environ"),
    [
        (SERVICE, {}),
        ("[daemon]\nwatch = false\n" + SERVICE, {}),
        ('[admin]\nmetrics = "127.0.0.1:1"\ngroup = "root"\n' + SERVICE, {}),
        (SERVICE, {"RUNTIME_DIRECTORY": "/run/x:/run/y"}),
        (SERVICE, {"SERVD_DAEMON__RUNTIME_DIR": "/run/z"}),
        (SERVICE.replace("true", "${NOT_SET}"), {}),
    ],
)
def test_it_is_where_the_whole_configuration_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, environ: dict[str, str]
) -> None:
    path = tmp_path / "servd.toml"
    path.write_text(text)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    quick = quick_target(str(path), environ)
    assert quick is not None
    monkeypatch.setattr("servd.control.locate.quick_target", lambda *_: None)
    found = client_of(str(path))
    assert f"unix:{found.client.endpoint}" == quick.admin
    assert found.note == ""


@pytest.mark.parametrize(
    ("text", "environ"),
    [
        ('[daemon]\nruntime_dir = "/run/x"\n' + SERVICE, {}),
        ('[admin]\nlisten = "unix:/run/a.sock"\n' + SERVICE, {}),
        ("[admin]\nenabled = false\n" + SERVICE, {}),
        ('include = ["more.toml"]\n' + SERVICE, {}),
        ("admin = 3\n" + SERVICE, {}),
        ("this is no TOML", {}),
        (SERVICE, {"SERVD_ADMIN__LISTEN": "unix:/x"}),
        (SERVICE, {"SERVD_DAEMON__RUNTIME_DIR": "relative"}),
    ],
)
def test_where_more_may_be_said_the_whole_is_read(
    tmp_path: Path, text: str, environ: dict[str, str]
) -> None:
    path = tmp_path / "servd.toml"
    path.write_text(text)
    assert quick_target(str(path), environ) is None


def test_folders_and_other_languages_are_read_whole(tmp_path: Path) -> None:
    (tmp_path / "servd.yaml").write_text("services: {}")
    assert quick_target(str(tmp_path), {}) is None
    assert quick_target(str(tmp_path / "servd.yaml"), {}) is None
    assert quick_target(str(tmp_path / "nosuch.toml"), {}) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has sockets of strangers")
def test_a_stranger_who_listens_in_place_of_the_daemon_is_not_asked(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    for folder in list(tmp_path.parents)[:3]:
        folder.chmod(folder.stat().st_mode | 0o711)
    code = (
        "import os, socket, sys\n"
        "os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); print(1, flush=True)\n"
        "s.accept()[0].recv(1000)"
    )
    path = str(tmp_path / "admin.sock")
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE) as stranger:
        assert stranger.stdout is not None
        stranger.stdout.readline()
        with pytest.raises(ServdError, match="user 65534 listens on"):
            AdminClient(path, own=True).status()
        stranger.kill()
