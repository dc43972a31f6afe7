"""What plans know of the GPUs while their driver answers, and while it does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from servd.config.bento.declared import Part
from servd.core.errors import ConfigError
from servd.daemon.gpus import knowledge
from servd.daemon.gpus.knowledge import GpuKnowledge
from servd.daemon.gpus.monitor import GpuMonitor
from servd.daemon.reload.desired import DesiredState
from servd.daemon.reload.planner import Planned, Planner
from servd.daemon.reload.request import ReloadRequest
from servd.daemon.upgrade.state import UpgradeState
from servd.host.gpu_query import GpuAnswer
from servd.host.gpus import equipped
from servd.plan.gpu_faults import Quarantine
from servd.plan.gpus import GpuError
from servd.plan.model import Plan
from servd.plan.overrides import FollowLoad, RefusedError, ScaleService
from servd.wire.gpus import Gpu, GpuSnapshot

from support.config_texts import RUNTIME_DIR, loaded_text
from support.gpus import FakeGpus
from support.plans import plan_of
from support.two_daemons import upgrade_state

TEXT = """
[services.web]
command = ["sleep", "9"]
env = {{ MODE = "{mode}" }}
[services.model]
command = ["sleep", "9"]
gpus = 1
workers = {models}
[services.pinned]
command = ["sleep", "9"]
gpus = [1]
"""
FOLLOWING = """
[services.model]
app = "main:app"
gpus = 1
autoscale = { max = 9, target_in_flight = 2 }
"""
READ = ReloadRequest("a file changed")
FIRST, SECOND = "GPU-fake-0", "GPU-fake-1"
SILENT = GpuAnswer(error="the GPU driver does not answer within 10 s")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knowledge, "_AGAIN_SECONDS", 0.2)


@pytest.fixture
def gpus(tmp_path: Path) -> FakeGpus:
    return FakeGpus(tmp_path / "gpus.json", 2)


def planner_on(gpus: FakeGpus) -> Planner:
    environ = {"PATH": "/bin", **gpus.environ}
    return Planner(environ, RUNTIME_DIR, lambda: "now", GpuKnowledge(environ, GpuMonitor(environ)))


def text(mode: str = "a", models: int = 1) -> str:
    return TEXT.format(mode=mode, models=models)


def first(planner: Planner) -> DesiredState:
    return planner.first(loaded_text(text()).require(), {}, {}, {}, 1)[0]


def dealt(planned: Planned) -> dict[str, tuple[tuple[str, ...], ...]]:
    return {each.name: each.gpus for each in planned.desired.plan.services if each.gpus}


def in_brief(planned: Planned) -> list[tuple[str, str]]:
    return [(change.service, change.kind) for change in planned.changes]


KEPT = {"model": ((FIRST,),), "pinned": ((SECOND,),)}


def test_services_keep_their_gpus_while_the_driver_is_silent(gpus: FakeGpus) -> None:
    monitor = GpuMonitor(gpus.environ)
    known = GpuKnowledge(gpus.environ, monitor)
    told: list[GpuSnapshot | None] = []
    known.tell = told.append
    found = known.ask().snapshot
    assert found is not None
    assert [gpu.id for gpu in found.gpus] == [FIRST, SECOND]
    known.before_applying()
    gpus.hang()
    silent = known.ask()
    assert silent.snapshot == found
    assert "does not answer" in silent.error
    known.before_applying()
    assert told == [found, None], "what is not known now is not measured"


def test_what_the_monitor_has_is_not_asked_again() -> None:
    environ = {"SERVD_GPU_BACKEND": "fake:/nonexistent"}
    monitor = GpuMonitor(environ)
    monitor.snapshot = GpuSnapshot(driver="x")
    assert GpuKnowledge(environ, monitor).ask().snapshot is monitor.snapshot


def test_a_reload_while_the_driver_hangs_moves_nothing_and_refuses_nothing(gpus: FakeGpus) -> None:
    planner = planner_on(gpus)
    desired = first(planner)
    gpus.hang()
    edited = planner.next(loaded_text(text(mode="b")).require(), desired, READ)
    assert (in_brief(edited), dealt(edited)) == ([("web", "roll")], KEPT)
    scaled = planner.next(
        desired.loaded, desired, ReloadRequest("x", read=False, act=ScaleService("web", 3))
    )
    assert (in_brief(scaled), dealt(scaled)) == ([("web", "scale")], KEPT)
    renewed = planner.next(
        desired.loaded, desired, ReloadRequest("x", read=False, certificates=True)
    )
    assert (renewed.changes, dealt(renewed)) == ((), KEPT)


def test_more_gpus_than_are_known_are_refused_while_the_driver_hangs(gpus: FakeGpus) -> None:
    planner = planner_on(gpus)
    desired = first(planner)
    gpus.hang()
    act = ReloadRequest("x", read=False, act=ScaleService("model", 2))
    with pytest.raises(RefusedError, match="this machine has 2 GPUs"):
        planner.next(desired.loaded, desired, act)


@pytest.mark.parametrize("is_told", [True, False])
def test_a_new_daemon_keeps_what_the_driver_told_the_old_one(
    gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch, *, is_told: bool
) -> None:
    old = planner_on(gpus)
    desired = first(old)
    gpus.hang()
    monkeypatch.setattr(knowledge, "FIRST_SECONDS", 0.2)
    held = {each.name: each.gpus for each in desired.plan.services if each.gpus}
    document = upgrade_state(gpus=held, known_gpus=old.gpus.last).to_json()
    state = UpgradeState.from_json(document)
    new = planner_on(gpus)
    new.gpus.held, new.gpus.last = state.gpus, state.known_gpus if is_told else None
    if not is_told:
        with pytest.raises(ConfigError, match=r"unknown GPU 1: only 2 GPUs are known \(the GPU"):
            first(new)
        return
    again = first(new)
    assert [each.gpus for each in again.plan.services] == [
        each.gpus for each in desired.plan.services
    ]
    edited = new.next(loaded_text(text(mode="b")).require(), again, READ)
    assert (in_brief(edited), dealt(edited)) == ([("web", "roll")], KEPT)


def test_a_plan_asks_once_however_many_numbers_of_workers_it_tries(
    gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    planner = planner_on(gpus)
    following = loaded_text(FOLLOWING).require()
    desired = planner.first(following, {}, {}, {}, 1)[0]
    asked: list[float] = []

    def ask(_: Mapping[str, str], seconds: float) -> GpuAnswer:
        asked.append(seconds)
        return SILENT

    monkeypatch.setattr(knowledge, "ask_gpus", ask)
    act = ReloadRequest("x", read=False, act=FollowLoad("model", 9))
    assert planner.next(desired.loaded, desired, act).desired.plan.service("model").workers == 2
    assert len(asked) == 1
    planner.next(desired.loaded, desired, act)
    assert len(asked) == 2


class Told:
    """What is known of GPUs, as it is given."""

    def __init__(self, answer: GpuAnswer) -> None:
        self.answer = answer
        self.peaks: Mapping[str, int] = {}
        self.held: Mapping[str, tuple[tuple[str, ...], ...]] = {}
        self.quarantine = Quarantine({})

    def ask(self) -> GpuAnswer:
        return self.answer


def bento(gpus: float = 1.0, **services: Any) -> Plan:
    """A service whose code requests GPUs, and others."""
    plan = plan_of({"rag": {"command": ("true",)}, **services})
    declared: Any = None
    part = Part(declared, True, {}, False, False, gpus=gpus)
    rag = dataclasses.replace(plan.service("rag"), part=part)
    return Plan((rag, *(each for each in plan.services if each.name != "rag")))


def planned(plan: Plan, answer: GpuAnswer, before: Plan) -> Plan:
    loaded = loaded_text('[services.rag]\ncommand = ["true"]\n').require()
    return equipped(loaded, plan, {}, before, Told(answer))[0]


def test_requests_in_code_stay_while_the_driver_hangs() -> None:
    there = GpuAnswer(GpuSnapshot((Gpu("GPU-a", "0"),)))
    before = planned(bento(), there, Plan())
    assert before.service("rag").gpus == (("GPU-a",),)
    again = planned(bento(), SILENT, before).service("rag")
    assert (again.gpus, again.gpu_names) == ((("GPU-a",),), {"GPU-a": "0"})
    assert again.environment == before.service("rag").environment
    more = planned(bento(other={"command": ("true",)}), SILENT, before)
    assert more.service("rag").gpus == (("GPU-a",),)


def test_new_requests_are_refused_with_the_reason_while_the_driver_hangs() -> None:
    with pytest.raises(GpuError, match=r"no GPUs are known \(the GPU driver does not answer"):
        planned(bento(), SILENT, Plan())


def test_requests_in_code_are_dropped_where_there_is_no_driver() -> None:
    before = planned(bento(), GpuAnswer(error="no driver", is_absent=True), Plan())
    assert before.service("rag").gpus == ()
    assert before.service("rag").environment["CUDA_VISIBLE_DEVICES"] == ""
    assert planned(bento(), SILENT, before) == before
