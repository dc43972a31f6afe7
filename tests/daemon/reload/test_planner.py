"""From texts and manual changes to what should run, without a process."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from servd.core.errors import ConfigError
from servd.daemon.gpus.knowledge import GpuKnowledge
from servd.daemon.gpus.monitor import GpuMonitor
from servd.daemon.reload.desired import DesiredState
from servd.daemon.reload.planner import Planned, Planner, ports_of
from servd.daemon.reload.request import ReloadRequest
from servd.plan.model import Plan
from servd.plan.overrides import Override, RefusedError, ScaleService, StartService, StopService

from support.config_texts import RUNTIME_DIR, loaded_text

TEXT = """
[daemon]
gpus = 2
[services.web]
command = ["sleep", "9"]
workers = {workers}
env = {{ MODE = "{mode}" }}
[services.model]
command = ["sleep", "9"]
gpus = 1
workers = {models}
[services.own]
command = ["sleep", "{{port}}"]
[services.setup]
kind = "task"
command = ["true"]
run = "once"
[services.import]
kind = "task"
command = ["true"]
"""
READ = ReloadRequest("a file changed")


def text(workers: object = 2, mode: str = "a", models: int = 1) -> str:
    return TEXT.format(workers=workers, mode=mode, models=models)


def planner() -> Planner:
    environ = {"PATH": "/bin"}
    return Planner(environ, RUNTIME_DIR, lambda: "now", GpuKnowledge(environ, GpuMonitor(environ)))


def first(said: str = "", overrides: dict[str, Override] | None = None) -> DesiredState:
    """What runs, and is declared by the text `said`."""
    return planner().first(loaded_text(said or text()).require(), overrides or {}, {}, {}, 1)[0]


def manually(desired: DesiredState, act: ScaleService | StopService | StartService) -> Planned:
    request = ReloadRequest("manually", read=False, act=act)
    return planner().next(desired.loaded, desired, request)


def read_again(desired: DesiredState, said: str, **request: Any) -> Planned:
    wanted = dataclasses.replace(READ, **request)
    return planner().next(loaded_text(said).require(), desired, wanted)


def workers(plan: Plan) -> dict[str, int]:
    return {service.name: service.workers for service in plan.services}


def in_brief(planned: Planned) -> list[tuple[str, str]]:
    return [(change.service, change.kind) for change in planned.changes]


def test_a_first_start_has_what_the_file_says_and_what_the_previous_daemon_leaves() -> None:
    loaded = loaded_text(text()).require()
    given = {"web": Override(5), "model": Override(1)}
    desired, warnings = planner().first(loaded, given, {"own": 4321}, {}, 7)
    assert warnings == []
    assert desired.overrides == {"web": Override(5)}  # one worker is what the file says of `model`
    assert workers(desired.plan)["web"] == 5
    assert workers(desired.declared)["web"] == 2
    assert (desired.revision, desired.loaded_at) == (7, "now")
    assert ports_of(desired.plan) == {"own": 4321}


def test_a_first_start_without_enough_gpus_is_a_mistake_in_the_file() -> None:
    with pytest.raises(ConfigError, match="model"):
        first(text(models=3))


def test_a_manual_change_keeps_the_file_and_what_it_declares() -> None:
    desired = first()
    planned = manually(desired, ScaleService("web", 4))
    assert in_brief(planned) == [("web", "scale")]
    assert planned.desired.loaded is desired.loaded
    assert planned.desired.declared == desired.declared
    assert planned.desired.overrides == {"web": Override(4)}
    assert desired.overrides == {}


def test_overrides_survive_a_change_of_the_file_that_does_not_touch_them() -> None:
    desired = manually(first(), ScaleService("web", 4)).desired
    planned = read_again(desired, text(mode="b"))
    assert in_brief(planned) == [("web", "roll")]
    assert planned.desired.overrides == {"web": Override(4)}
    assert workers(planned.desired.plan)["web"] == 4
    again = read_again(planned.desired, text(mode="b"))
    assert again.changes == ()
    assert workers(again.desired.plan)["web"] == 4


def test_an_override_ends_when_the_file_changes_its_key() -> None:
    desired = manually(first(), ScaleService("web", 4)).desired
    planned = read_again(desired, text(workers=3))
    assert in_brief(planned) == [("web", "scale")]
    assert planned.desired.overrides == {}
    assert workers(planned.desired.plan)["web"] == 3


def test_an_override_of_a_service_that_goes_does_not_come_back_with_it() -> None:
    desired = manually(first(), StopService("web")).desired
    rest = text()[text().index("[services.model]") :]
    gone = read_again(desired, f"[daemon]\ngpus = 2\n{rest}")
    assert in_brief(gone) == [("web", "remove")]
    back = read_again(gone.desired, text())
    assert in_brief(back) == [("web", "add")]
    assert workers(back.desired.plan)["web"] == 2


def test_a_stop_and_a_start_lead_back_to_the_number_that_was_set() -> None:
    desired = manually(first(), ScaleService("web", 4)).desired
    stopped = manually(desired, StopService("web"))
    assert workers(stopped.desired.plan)["web"] == 0
    assert workers(manually(stopped.desired, StartService("web")).desired.plan)["web"] == 4


def test_ports_that_were_chosen_are_kept_across_readings() -> None:
    desired = first()
    (port,) = ports_of(desired.plan).values()
    assert port
    planned = read_again(desired, text(mode="b"))
    assert ports_of(planned.desired.plan) == {"own": port}


def test_more_gpus_than_there_are_refuse_a_person_and_are_a_mistake_in_a_file() -> None:
    desired = first()
    assert workers(manually(desired, ScaleService("model", 2)).desired.plan)["model"] == 2
    with pytest.raises(RefusedError, match="model"):
        manually(desired, ScaleService("model", 3))
    with pytest.raises(ConfigError, match="model"):
        read_again(desired, text(models=3))


def test_gpus_of_workers_that_stay_are_not_dealt_again() -> None:
    desired = first()
    before = desired.plan.service("model").gpus
    after = manually(desired, ScaleService("model", 2)).desired.plan.service("model").gpus
    assert after[0] == before[0]
    assert len({each for worker in after for each in worker}) == 2


def test_a_new_daemon_deals_gpus_as_the_old_one_did() -> None:
    made = planner()
    made.gpus.held = {"model": (("1",),), "gone": (("0",),)}
    desired, _ = made.first(loaded_text(text()).require(), {}, {}, {}, 1)
    assert desired.plan.service("model").gpus == (("1",),)


def test_a_service_can_be_replaced_though_it_did_not_change() -> None:
    desired = first()
    request = ReloadRequest("restart", read=False, roll=frozenset({"web"}))
    assert in_brief(planner().next(desired.loaded, desired, request)) == [("web", "roll")]
    assert in_brief(read_again(desired, text(), roll=frozenset({"web"}))) == [("web", "roll")]


def test_all_are_replaced_except_tasks_that_run_once() -> None:
    planned = read_again(first(), text(), roll_all=True)
    assert {service for service, _ in in_brief(planned)} == {"web", "model", "own", "import"}


def test_a_stopped_service_is_not_started_by_a_roll() -> None:
    desired = manually(first(), StopService("web")).desired
    assert ("web", "roll") not in in_brief(read_again(desired, text(), roll_all=True))


def test_a_service_that_is_gone_is_refused_manually_and_ignored_where_its_code_changed() -> None:
    desired = first()
    roll = frozenset({"gone"})
    with pytest.raises(RefusedError, match='"gone"'):
        planner().next(desired.loaded, desired, ReloadRequest("restart", read=False, roll=roll))
    assert read_again(desired, text(), roll=roll).changes == ()
    with pytest.raises(RefusedError, match='"gone"'):
        manually(desired, ScaleService("gone", 2))


def test_new_certificates_change_only_the_services_that_rotate_theirs(tmp_path: Path) -> None:
    pair = f'certfile = "{tmp_path}/cert.pem"\nkeyfile = "{tmp_path}/key.pem"'
    said = "\n".join(
        f'[services.{name}]\napp = "m:a"\nlisten = "127.0.0.1:{port}"\n'
        f"[services.{name}.tls]\n{pair}\nrotate = {rotate}"
        for name, port, rotate in (("turns", 1, "true"), ("stays", 2, "false"))
    )
    (tmp_path / "cert.pem").write_text("one")
    (tmp_path / "key.pem").write_text("key one")
    desired = planner().first(loaded_text(said), {}, {}, {}, 1)[0]
    (tmp_path / "cert.pem").write_text("two")
    (tmp_path / "key.pem").write_text("key two")
    request = ReloadRequest("a certificate changed", read=False, certificates=True)
    planned = planner().next(desired.loaded, desired, request)
    assert in_brief(planned) == [("turns", "live")]
    tls = planned.desired.plan.service("turns").tls
    assert tls is not None
    assert (tls.certificate, tls.key) == ("two", "key two")
    assert planner().next(planned.desired.loaded, planned.desired, request).changes == ()
