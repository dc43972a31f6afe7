"""The other project named servd is detected."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from servd.host.other_servd import other_servd

from support.harness import Servd, command

SERVICE = '[services.job]\ncommand = ["sleep", "1000"]\nready = "started"\n'


def test_its_metadata_tells_it_apart(tmp_path: Path) -> None:
    assert other_servd([str(tmp_path), str(tmp_path / "none")]) == ""
    for name in ("servd_serve-0.1.0.dist-info", "servd-extra-1.dist-info", "servd"):
        (tmp_path / name).mkdir()
    assert other_servd([str(tmp_path)]) == ""
    (tmp_path / "servd-1.0.0.dist-info").mkdir()
    assert other_servd([str(tmp_path)]) == "1.0.0"


def test_doctor_and_the_start_report_it(servd: Servd, tmp_path: Path) -> None:
    folder = tmp_path / "packages"
    (folder / "servd-1.0.0.dist-info").mkdir(parents=True)
    environ = {"PYTHONPATH": str(folder)}
    done = command("doctor", folder=tmp_path, environ=environ)
    assert "problem: another project's servd 1.0.0 is installed" in done.stdout
    daemon = servd(SERVICE, environ=environ).ready()
    (warning,) = daemon.lines("config warning")
    assert f"{sys.executable} -m pip uninstall servd" in warning["warning"]


def test_this_environment_has_it_not() -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "list", "--format", "freeze"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "servd-serve" in listed or "servd_serve" in listed
    assert other_servd() == ""
