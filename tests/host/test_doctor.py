"""`servd doctor` reports problems and how to fix them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.harness import command
from support.with_bentoml import PYTHON

SERVICE = '[services.web]\ncommand = ["true"]\n'


def test_a_machine_that_runs_the_tests_is_well(tmp_path: Path) -> None:
    (tmp_path / "servd.toml").write_text(SERVICE)
    done = command("doctor", folder=tmp_path)
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"ok: Python {sys.version.split()[0]}")
    assert any(line.startswith("ok: circus ") for line in lines)
    assert any(line.startswith("ok: uvicorn ") for line in lines)
    assert lines[-1] == "ok: servd.toml is valid"


def test_a_mistake_of_the_configuration_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "servd.toml").write_text(SERVICE + "wrkers = 2\n")
    done = command("doctor", "--json", folder=tmp_path)
    assert done.returncode == 1
    last = json.loads(done.stdout)[-1]
    assert (last["level"], last["advice"]) == ("problem", "run `servd check`")


def test_a_few_open_files_are_worth_a_word(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"ulimit -n 1024; exec {sys.executable} -m servd doctor"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert "warning: limit of 1024 open files" in done.stdout


def test_kantoku_beside_circus_is_said_and_no_trouble(tmp_path: Path) -> None:
    done = subprocess.run(
        [PYTHON, "-m", "servd", "doctor"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    assert "share their files: servd runs with either" in done.stdout
    assert "ok: bentoml 1.4." in done.stdout
    gone = "import sys; sys.modules['circus'] = None; from servd.cli.main import main; main()"
    done = subprocess.run(
        [PYTHON, "-c", gone, "doctor"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "problem: files of the package circus are missing" in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become somebody else")
def test_a_port_that_is_not_for_this_user_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "servd.toml").write_text(SERVICE + 'listen = ":443"\n')
    drop = ["setpriv", "--bounding-set=-net_bind_service", "--inh-caps=-all"]
    done = subprocess.run(
        [*drop, sys.executable, "-m", "servd", "doctor"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "problem: this user cannot bind ports below 1024: 443" in done.stdout


def test_gpus_that_are_asked_for_and_not_there_are_a_problem(tmp_path: Path) -> None:
    (tmp_path / "servd.toml").write_text(SERVICE + "gpus = 1\n")
    environ = {"CUDA_VISIBLE_DEVICES": ""}
    done = command("doctor", folder=tmp_path, environ=environ)
    assert done.returncode == 1
    assert "problem: GPUs: none" in done.stdout
    there = command("doctor", folder=tmp_path, environ={"CUDA_VISIBLE_DEVICES": "3,5"})
    assert "ok: GPUs: 2 (3, 5)" in there.stdout
