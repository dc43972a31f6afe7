"""What is set by hand beside the file: pure."""

from __future__ import annotations

import pytest

from servd.config.find import Disk, Source
from servd.config.load import load_sources
from servd.config.model import Config
from servd.host.facts import inspect_host
from servd.plan.build import build
from servd.plan.diff import diff
from servd.plan.model import Plan
from servd.plan.overrides import (
    EndedOverride,
    Override,
    RefusedError,
    ScaleService,
    StartService,
    StopService,
    acted,
    effective_overrides,
    ended,
    surviving,
    with_overrides,
)

CHAIN = """
[services.front]
command = ["sleep", "1"]
depends_on = ["middle"]
workers = {front}
[services.middle]
command = ["sleep", "1"]
depends_on = ["back"]
[services.back]
command = ["sleep", "1"]
workers = {back}
[services.job]
kind = "task"
command = ["true"]
depends_on = ["back"]
"""


def config(front: object = 2, back: object = 1) -> Config:
    source = Source("servd.toml", CHAIN.format(front=front, back=back).encode())
    return load_sources([source], "servd.toml", {}, Disk()).require().config


def plan(front: object = 2, back: object = 1) -> Plan:
    found = config(front, back)
    return build(found, inspect_host(found, {}), "/run/x")


def workers(of: Plan) -> dict[str, int]:
    return {service.name: service.workers for service in of.services}


def test_a_scale_changes_workers_and_nothing_else() -> None:
    file = plan()
    overrides = acted({}, ScaleService("front", 5), file)
    shall = with_overrides(file, overrides)
    assert workers(shall) == {**workers(file), "front": 5}
    (change,) = diff(file, shall)
    assert (change.service, change.kind) == ("front", "scale")
    assert [(key.key, key.before, key.after) for key in change.keys] == [("workers", "2", "5")]


def test_a_stop_is_refused_while_others_need_it_and_cascades_when_asked() -> None:
    file = plan()
    with pytest.raises(RefusedError, match=r"middle, front depend on back") as refused:
        acted({}, StopService("back"), file)
    assert "--cascade" in refused.value.hint
    overrides = acted({}, StopService("back", cascade=True), file)
    assert workers(with_overrides(file, overrides)) == {
        "front": 0, "middle": 0, "back": 0, "job": 1,
    }  # fmt: skip
    changes = diff(file, with_overrides(file, overrides))
    assert [change.service for change in changes] == ["front", "middle", "back"]
    assert all(change.halts for change in changes)


def test_a_stop_is_not_refused_for_what_is_stopped_already() -> None:
    file = plan()
    overrides = acted({}, StopService("front"), file)
    assert acted(overrides, StopService("middle"), file)["middle"].stopped


def test_a_start_brings_what_is_needed_and_the_number_that_was_set_by_hand() -> None:
    file = plan()
    overrides = acted(
        acted({}, ScaleService("front", 4), file), StopService("back", cascade=True), file
    )
    started = acted(overrides, StartService("front"), file)
    assert workers(with_overrides(file, started)) == {**workers(file), "front": 4}
    changes = diff(with_overrides(file, overrides), with_overrides(file, started))
    assert [(c.service, c.starts) for c in changes] == [
        ("back", True), ("middle", True), ("front", True),
    ]  # fmt: skip


def test_scaling_to_nothing_is_a_stop() -> None:
    assert acted({}, ScaleService("front", 0), plan()) == {"front": Override(None, stopped=True)}
    with pytest.raises(RefusedError):
        acted({}, ScaleService("back", 0), plan())


def test_what_cannot_be_scaled_or_started_is_refused() -> None:
    with pytest.raises(RefusedError, match="is a task"):
        acted({}, ScaleService("job", 2), plan())
    with pytest.raises(RefusedError, match="workers = 0 in the config"):
        acted({}, StartService("front"), plan(front=0))


def test_an_override_lasts_until_the_file_changes_that_very_key() -> None:
    overrides = {"front": Override(5), "back": Override(stopped=True), "gone": Override(1)}
    assert surviving(overrides, plan(), plan()) == {
        "front": Override(5), "back": Override(stopped=True),
    }  # fmt: skip
    assert surviving(overrides, plan(), plan(front=3)) == {"back": Override(stopped=True)}
    assert surviving(overrides, plan(), plan(front=3, back=2)) == {}


def test_an_override_outlasts_the_same_number_in_other_words() -> None:
    auto = plan(front='"auto"')
    two = plan(front=auto.service("front").workers)
    overrides = {"front": Override(77)}
    assert surviving(overrides, two, auto) == surviving(overrides, auto, two) == overrides


def test_what_ends_is_told_with_what_the_file_says() -> None:
    file = plan(front=2)
    before = {"front": Override(5), "back": Override(stopped=True)}
    running = with_overrides(file, before)
    assert ended(before, before, running, file) == ()
    assert ended(before, {"back": before["back"]}, running, plan(front=3)) == (
        EndedOverride("front", 5, 3),
    )
    assert ended(before, {"front": before["front"]}, running, Plan()) == (
        EndedOverride("back", 0, None),
    )


def test_what_the_file_says_anyway_is_forgotten() -> None:
    assert effective_overrides({"front": Override(2), "back": Override(3)}, plan()) == {
        "back": Override(3)
    }


def test_a_change_of_the_file_shows_the_number_by_hand_that_it_replaces() -> None:
    before = with_overrides(plan(), {"front": Override(5)})
    (change,) = diff(before, plan(front=3))
    assert change.kind == "scale"
    assert [(key.before, key.after) for key in change.keys] == [("5 (set manually)", "3")]
