"""The state of an input changes with its content, and with nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from servd.host.inputs import MISSING, states_of


def state(path: Path) -> str:
    return states_of([str(path)])[str(path)]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model" / "parts").mkdir(parents=True)
    (tmp_path / "model" / "weights").write_bytes(b"one")
    (tmp_path / "model" / "parts" / "0").write_bytes(b"two")
    (tmp_path / "other").write_bytes(b"one")
    (tmp_path / "current").symlink_to("model")
    return tmp_path / "model"


def swapped(model: Path) -> None:
    (model.parent / "next").symlink_to("other")
    os.replace(model.parent / "next", model.parent / "current")


CHANGES: list[Callable[[Path], object]] = [
    lambda model: (model / "weights").write_bytes(b"longer"),
    lambda model: os.utime(model / "parts" / "0", (1, 1)),
    lambda model: (model / "parts" / "1").write_bytes(b""),
    lambda model: (model / "parts" / "0").unlink(),
    lambda model: (model / "weights").rename(model / "renamed"),
    lambda model: os.replace(model.parent / "other", model / "weights"),
    swapped,
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_what_is_there_is_another_state(
    model: Path, change: Callable[[Path], object]
) -> None:
    before = state(model.parent / "current")
    assert state(model.parent / "current") == before
    change(model)
    assert state(model.parent / "current") != before


def test_it_begins_with_the_time_of_the_newest_file(model: Path) -> None:
    os.utime(model / "parts" / "0", (1e9, 1e9))
    os.utime(model / "weights", (1.1e9, 1.1e9))
    assert state(model).startswith("2004-11-09T11:33:20Z ")


def test_what_is_missing_has_a_state_too(tmp_path: Path) -> None:
    assert state(tmp_path / "nothing") == MISSING
    (tmp_path / "empty").mkdir()
    assert state(tmp_path / "empty") != MISSING
    (tmp_path / "dangling").symlink_to("nothing")
    assert state(tmp_path / "dangling") == MISSING
