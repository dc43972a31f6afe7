"""What the kernel reports of folders."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from servd.daemon.watch.folder_events import FolderEvents

from support.in_loop import in_loop

CHANGES: dict[str, Callable[[Path], object]] = {
    "written": lambda folder: (folder / "file").write_text("x"),
    "put in place": lambda folder: (folder.parent / "new").rename(folder / "file"),
    "taken away": lambda folder: (folder / "file").rename(folder.parent / "away"),
    "deleted": lambda folder: (folder / "file").unlink(),
    "its rights": lambda folder: (folder / "file").chmod(0o600),
    "the folder is moved": lambda folder: folder.rename(folder.parent / "moved"),
}


@pytest.mark.parametrize("change", CHANGES)
@in_loop
async def test_each_kind_of_change_is_reported(tmp_path: Path, change: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").touch()
    (tmp_path / "new").touch()
    changed = asyncio.Event()
    with contextlib.closing(FolderEvents([str(tmp_path / "folder")], changed.set)):
        CHANGES[change](folder)
        await changed.wait()


@in_loop
async def test_changes_after_others_are_reported(tmp_path: Path) -> None:
    changed = asyncio.Event()
    with contextlib.closing(FolderEvents([str(tmp_path)], changed.set)):
        for number in range(3):
            changed.clear()
            (tmp_path / str(number)).touch()
            await changed.wait()


@in_loop
async def test_a_folder_that_is_missing_is_named_and_nothing_stays_open(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="gone") as caught:
        FolderEvents([str(tmp_path), str(tmp_path / "gone")], lambda: None)
    assert caught.value.errno == errno.ENOENT
    assert os.listdir("/proc/self/fd") == before
