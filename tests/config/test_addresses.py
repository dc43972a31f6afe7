"""An address has one owner, however it is spelled."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from servd.config.load import load


def mistakes(folder: Path, first: str, second: str, more: str = "") -> list[str]:
    (folder / "servd.toml").write_text(
        f'[services.a]\ncommand = ["true"]\nlisten = "{first}"\n'
        f'[services.b]\ncommand = ["true"]\nlisten = "{second}"\n{more}'
    )
    loaded = load(str(folder / "servd.toml"), {})
    return [f"{d.path}: {d.message}" for d in loaded.errors]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("127.0.0.1:8000", "localhost:8000"),
        ("LOCALHOST:8000", "localhost:8000"),
        ("[::1]:8000", "[0:0:0:0:0:0:0:1]:8000"),
        ("[::1]:8000", "[0::01]:8000"),
        (":8000", "localhost:8000"),
        ("0.0.0.0:8000", "localhost:8000"),
        ("[::]:8000", "[0:0::1]:8000"),
        ("[0:0::0]:8000", "[::1]:8000"),
        ("*:8000", ":8000"),
        ("unix:run/x.sock", "unix:./run/../run/x.sock"),
        ("unix:run/x.sock", "unix:link/x.sock"),
        ("fd:web", "fd:web"),
    ],
)
def test_two_spellings_are_one_address(tmp_path: Path, first: str, second: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    (found,) = mistakes(tmp_path, first, second)
    assert found.startswith("services.b.listen: ")
    assert "is already in use: services.a listens on" in found


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("127.0.0.1:8000", "127.0.0.2:8000"),
        ("127.0.0.1:8000", "[::1]:8000"),
        ("0.0.0.0:8000", "[::]:8000"),
        ("localhost:8000", "localhost:8001"),
        (":0", ":0"),
        ("unix:x.sock", "unix:y.sock"),
        ("no-such-host.invalid:8000", "127.0.0.1:8000"),
    ],
)
def test_different_addresses_are_free(tmp_path: Path, first: str, second: str) -> None:
    assert mistakes(tmp_path, first, second) == []


@pytest.mark.parametrize(
    ("own", "where"),
    [
        ('metrics = "localhost:8000"', "admin.metrics"),
        ('metrics = ":8000"', "admin.metrics"),
        ('listen = "127.0.0.1:8000"\ntoken = "x"', "admin.listen"),
        ('listen = "unix:./a.sock"', "admin.listen"),
    ],
)
def test_the_addresses_of_the_daemon_count(tmp_path: Path, own: str, where: str) -> None:
    (found,) = mistakes(tmp_path, "127.0.0.1:8000", "unix:a.sock", f"[admin]\n{own}\n")
    assert found.startswith(f"{where}: ")
    assert "is already in use: services." in found


def test_both_addresses_of_the_daemon_are_different(tmp_path: Path) -> None:
    own = '[admin]\nlisten = "localhost:9000"\ntoken = "x"\nmetrics = "127.0.0.1:9000"\n'
    (found,) = mistakes(tmp_path, ":1", ":2", own)
    assert "admin.metrics: 127.0.0.1:9000 is already in use: admin.listen listens on" in found


def test_one_service_and_one_address(tmp_path: Path) -> None:
    (tmp_path / "servd.toml").write_text(
        '[services.a]\ncommand = ["true"]\nlisten = ["localhost:8000", "127.0.0.1:8000"]\n'
    )
    (found,) = load(os.fspath(tmp_path / "servd.toml"), {}).errors
    assert "is already in use: this service listens on localhost:8000" in found.message
