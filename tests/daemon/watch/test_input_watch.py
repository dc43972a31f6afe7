"""What a service takes in, a model for example: its change replaces the workers."""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from servd.daemon.reload.request import ReloadRequest
from servd.daemon.watch import inputs
from servd.host.inputs import states_of

from support.harness import Servd, ServdProcess, command, wait_until

APP = """
    from pathlib import Path

    WORD = Path("models/current").read_text()
    if WORD == "broken":
        raise ValueError("a broken model")

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": WORD.encode()})
"""
CONFIG = """
    [services.web]
    app = "main:app"
    listen = "127.0.0.1:0"
    inputs = "models/current"
    [services.other]
    app = "main:app"
    listen = "127.0.0.1:0"
"""


def started(servd: Servd, *, watch: bool = True) -> ServdProcess:
    (servd.folder / "models").mkdir()
    (servd.folder / "models" / "one").write_text("one")
    (servd.folder / "models" / "current").symlink_to("one")
    servd.watching = watch
    return servd(CONFIG, main_py=APP).ready()


def swap(folder: Path, word: str) -> None:
    (folder / "models" / word).write_text(word)
    (folder / "models" / "next").symlink_to(word)
    os.replace(folder / "models" / "next", folder / "models" / "current")


def test_another_model_is_served_by_new_workers(servd: Servd) -> None:
    daemon = started(servd)
    other = daemon.pids("other")
    swap(servd.folder, "two")
    wait_until(lambda: daemon.get("web").text == "two", "the new model is served")
    last = daemon.status()["last_reload"]
    assert last["why"] == "current changed"
    (change,) = last["changes"]
    assert (change["service"], change["kind"]) == ("web", "roll")
    (key,) = change["keys"]
    assert key["key"] == "inputs"
    assert key["before"].startswith(f"{servd.folder}/models/current: 20")
    assert daemon.pids("other") == other
    (servd.folder / "models" / "two").write_text("three")
    wait_until(lambda: daemon.get("web").text == "three", "so is a file that was written again")


def test_a_model_that_does_not_load_changes_nothing_and_is_tried_once(servd: Servd) -> None:
    daemon = started(servd)
    swap(servd.folder, "broken")
    daemon.wait_for("reload failed", outcome="rolled_back")
    assert daemon.get("web").text == "one"
    notice = f"runs older inputs than the disk: {servd.folder}/models/current"
    wait_until(lambda: daemon.service("web")["notices"] == [notice], "the status says so")
    assert "runs older inputs than the disk" in daemon.cli("status").stdout
    assert "until then it runs older inputs than the disk" in daemon.cli("plan").stdout
    assert daemon.service("other")["notices"] == []
    swap(servd.folder, "two")
    wait_until(lambda: daemon.get("web").text == "two", "the next one is served")
    assert len(daemon.find("reload failed")) == 1
    wait_until(lambda: daemon.service("web")["notices"] == [], "nothing is older any more")


def test_without_the_watch_a_reload_notices_it(servd: Servd) -> None:
    daemon = started(servd, watch=False)
    swap(servd.folder, "two")
    planned = daemon.cli("plan").stdout
    assert "~ web" in planned
    assert "inputs" in planned
    assert daemon.cli("reload").returncode == 0
    assert daemon.get("web").text == "two"
    swap(servd.folder, "broken")
    assert daemon.reload()["outcome"] == "rolled_back"
    older = f"runs older inputs than the disk: {servd.folder}/models/current"
    wait_until(lambda: daemon.service("web")["notices"] == [older], "an undone reload is noticed")
    asked = [event["reason"] for event in daemon.find("reload started")]
    assert asked == ["the admin API", "the admin API"]


def test_a_missing_input_is_a_warning(servd: Servd) -> None:
    servd.write(servd_toml=CONFIG, main_py=APP)
    checked = command("check", folder=servd.folder)
    assert checked.returncode == 0
    assert "models/current" in checked.stdout + checked.stderr


def test_a_model_that_is_still_copied_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until two looks in a row see the same."""
    seen = iter(["a", "b", "c", "d", "d", "d", "d"])
    looks: list[str] = []

    def states(paths: Iterable[str]) -> dict[str, str]:
        looks.append(next(seen))
        return dict.fromkeys(paths, looks[-1])

    monkeypatch.setattr(inputs, "states_of", states)
    monkeypatch.setattr(inputs, "_QUIET_SECONDS", 0.0)
    asked: list[ReloadRequest] = []

    async def look() -> None:
        watch = inputs.InputWatch(asked.append)
        watch._wanted = True
        service: Any = SimpleNamespace(inputs=(("/models/current", "a"),))
        plan: Any = SimpleNamespace(services=[service])
        watch._known = {path: state for s in plan.services for path, state in s.inputs}
        for _ in range(3):
            await watch._look()

    asyncio.run(look())
    assert looks == ["a", "b", "c", "d", "d", "d"]
    assert [request.why for request in asked] == ["current changed"]


def test_a_link_that_is_swapped_while_its_model_is_copied_is_one_change(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    link = tmp_path / "current"
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text(name)
    link.symlink_to("one")
    in_force = states_of([str(link)])

    def copy(text: str) -> None:
        with open(tmp_path / "two" / "weights", "a") as file:
            file.write(text)

    def swap_link() -> None:
        (tmp_path / "next").symlink_to("two")
        os.replace(tmp_path / "next", link)

    copies = [functools.partial(copy, text) for text in ("half", "whole")]
    steps: Iterator[Callable[[], None]] = iter([swap_link, *copies])
    looks: list[dict[str, str]] = []

    def states(paths: Iterable[str]) -> dict[str, str]:
        for step in itertools.islice(steps, 1):
            step()
        looks.append(states_of(paths))
        return looks[-1]

    monkeypatch.setattr(inputs, "states_of", states)
    monkeypatch.setattr(inputs, "_QUIET_SECONDS", 0.0)
    asked: list[ReloadRequest] = []
    watch = inputs.InputWatch(asked.append)
    watch._wanted, watch._known = True, in_force
    asyncio.run(watch._look())
    assert [request.why for request in asked] == ["current changed"]
    assert len(looks) == 4
    assert len({*map(str, looks)}) == 3
    assert looks[-1] == states_of([str(link)])
    assert watch.newer == {str(link)}
