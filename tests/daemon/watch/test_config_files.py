"""What the files of a configuration ask for when they change, on a clock that the test moves."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
from collections.abc import Mapping
from pathlib import Path

import pytest

from servd.daemon.reload.request import ReloadRequest
from servd.daemon.watch import paths
from servd.daemon.watch.config_files import FileWatch

from support.config_texts import loaded_text
from support.in_loop import in_loop
from support.manual_clock import ManualClock

CONFIG = """
[daemon]
watch_debounce = 1
[services.web]
app = "main:app"
listen = "127.0.0.1:0"
env_file = "web.env"
"""
TLS = 'tls = {{ certfile = "{0}/cert.pem", keyfile = "{0}/key.pem" }}\n'


class Watched:
    """A folder of files, watched by the clock alone: the kernel's reports are not asked for."""

    def __init__(self, folder: Path, text: str = CONFIG) -> None:
        self.folder = folder
        self.asked: list[ReloadRequest] = []
        self.clock = ManualClock()
        self.watch = FileWatch(self.asked.append, self.clock)
        self.write(**{"servd.toml": text, "web.env": "", "cert.pem": "1", "key.pem": "1"})
        self.loaded = loaded_text(text, str(folder / "servd.toml"))
        self.watch.has_read(self.loaded)

    def write(self, **texts: str) -> None:
        for name, text in texts.items():
            (self.folder / name).write_text(text)

    def checked(self, texts: Mapping[str, str] | None = None) -> list[ReloadRequest]:
        """What is asked for after an edit."""
        self.write(**(texts or {}))
        self.asked.clear()
        self.watch.check()
        return list(self.asked)


@pytest.mark.parametrize("name", ["servd.toml", "web.env"])
@in_loop
async def test_a_file_that_changes_asks_for_a_reload_once(tmp_path: Path, name: str) -> None:
    watched = Watched(tmp_path)
    assert watched.checked({name: "A=1"}) == [ReloadRequest("a file changed")]
    assert watched.checked() == []
    assert watched.checked({name: "A=1"}) == []


@in_loop
async def test_a_file_that_goes_and_comes_back_asks_each_time(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    (tmp_path / "web.env").unlink()
    assert watched.checked() == [ReloadRequest("a file changed")]
    assert watched.checked({"web.env": ""}) == [ReloadRequest("a file changed")]


@in_loop
async def test_a_file_that_nothing_names_asks_for_nothing(tmp_path: Path) -> None:
    assert Watched(tmp_path).checked({"other.toml": "x"}) == []


@in_loop
async def test_a_certificate_asks_for_its_own_kind_of_reload(tmp_path: Path) -> None:
    watched = Watched(tmp_path, CONFIG + TLS.format(tmp_path))
    certificate = ReloadRequest("a certificate changed", read=False, certificates=True)
    assert watched.checked({"cert.pem": "2", "key.pem": "2"}) == [certificate]
    assert watched.checked({"key.pem": "3", "web.env": "A=1"}) == [
        ReloadRequest("a file changed"), certificate,
    ]  # fmt: skip


@in_loop
async def test_files_are_not_watched_where_the_configuration_says_so(tmp_path: Path) -> None:
    text = CONFIG.replace("[daemon]", "[daemon]\nwatch = false") + TLS.format(tmp_path)
    watched = Watched(tmp_path, text)
    assert watched.checked({"servd.toml": "x", "web.env": "A=1"}) == []
    assert len(watched.checked({"cert.pem": "2"})) == 1


@in_loop
async def test_what_changes_while_it_is_read_is_asked_for_once_it_is_quiet(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.watch.about_to_read()
    watched.write(**{"web.env": "A=1"})  # the reader may have missed it
    watched.watch.look_at(watched.loaded, watched.loaded)
    watched.clock.advance(0.9)
    assert watched.asked == []
    watched.clock.advance(0.2)
    assert watched.asked == [ReloadRequest("a file changed")]
    await watched.watch.stop()


@in_loop
async def test_a_file_that_comes_while_others_are_read_is_asked_for(tmp_path: Path) -> None:
    """Only a pattern finds it: the reader has not."""
    watched = Watched(tmp_path)
    pattern = str(tmp_path / "*.toml")
    read = dataclasses.replace(watched.loaded, patterns=(pattern,))
    watched.watch.look_at(read, watched.loaded)
    watched.watch.about_to_read()
    watched.write(**{"job.toml": ""})
    watched.watch.look_at(read, watched.loaded)
    watched.clock.advance(1.1)
    assert watched.asked == [ReloadRequest("a file changed")]
    await watched.watch.stop()


@in_loop
async def test_nothing_is_asked_for_after_the_end(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.write(**{"web.env": "A=1"})
    watched.watch.look_at(watched.loaded, watched.loaded)
    assert watched.clock.pending == 1
    await watched.watch.stop()
    watched.clock.advance(100)
    assert watched.asked == []


@in_loop
async def test_files_that_cannot_be_read_for_now_are_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(tmp_path)
    watched.write(**{"web.env": "A=1"})

    def exhausted(path: str) -> bytes:
        raise OSError(errno.EMFILE, "too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(paths, "_content", exhausted)
        watched.watch.check()
        watched.watch.check()
        watched.clock.advance(10)
        assert watched.asked == []
        watched.watch._look()  # as the backstop does
        assert watched.clock.pending == 1
    watched.clock.advance(10)
    assert watched.asked == [ReloadRequest("a file changed")]
    assert watched.clock.pending == 0


@in_loop
async def test_another_configuration_is_watched_from_when_it_was_looked_at(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    other = dataclasses.replace(watched.loaded, read=(str(tmp_path / "secret"),))
    watched.watch.look_at(other, watched.loaded)
    assert watched.checked({"secret": "x"}) == [ReloadRequest("a file changed")]
    await watched.watch.stop()


@in_loop
async def test_a_watch_ends_when_it_has_just_been_asked_for_other_folders(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.watch.look_at(watched.loaded, watched.loaded)
    await asyncio.sleep(0)  # it waits for what the kernel reports
    (tmp_path / "more").mkdir()
    other = dataclasses.replace(watched.loaded, patterns=(str(tmp_path / "more" / "*.toml"),))
    watched.watch.look_at(other, watched.loaded)
    await watched.watch.stop()
