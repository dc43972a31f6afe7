"""The path of the configuration leads through a link, which is swapped while the daemon runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from support.harness import Servd, command, wait_until

DEFAULT = {"SERVD_DAEMON__RUNTIME_DIR": "", "SERVD_DAEMON__WATCH": "true"}
"""The runtime folder is named by the path of the configuration."""


def release(folder: Path, name: str, seconds: int, options: str = "") -> Path:
    """A release with its configuration, to which `current` leads from now on."""
    made = folder / name
    made.mkdir()
    text = f'{options}[services.job]\ncommand = ["sleep", "{seconds}"]\n'
    (made / "servd.toml").write_text(text)
    beside = folder / "current.new"
    beside.symlink_to(name)
    beside.rename(folder / "current")
    return made / "servd.toml"


@pytest.mark.parametrize("options", ["", "[daemon]\nstart_concurrency = 2\n"])
def test_the_daemon_is_found_by_either_path(servd: Servd, tmp_path: Path, options: str) -> None:
    def status(path: Path | str, folder: Path = tmp_path) -> Any:
        return command("status", "--config", str(path), folder=folder, environ=DEFAULT)

    first = release(tmp_path, "one", 1000, options)
    link = tmp_path / "current" / "servd.toml"
    daemon = servd.run("--config", str(link), environ=DEFAULT).ready()
    for path in (link, first, "current/../current/servd.toml"):
        assert status(path).returncode == 0, status(path).stderr

    second = release(tmp_path, "two", 2000, options)
    daemon.wait_for("reload finished", outcome="applied")
    for path in (link, second):
        assert status(path).returncode == 0, status(path).stderr
    here = command("status", folder=tmp_path / "current", environ=DEFAULT)
    assert here.returncode == 0  # the working directory has no link in its path
    assert status(first).returncode == 69  # nothing runs that any more

    for path in (link, second):
        again = servd.run("--config", str(path), environ=DEFAULT)
        assert again.wait() == 1
        assert f"another servd (pid {daemon.pid})" in again.output
    assert status(link).returncode == 0
    wait_until(lambda: os.path.exists(f"/proc/{daemon.pid}"), "the first goes on")
    assert daemon.stop() == 0
