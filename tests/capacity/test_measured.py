"""From what was measured to demands and calls."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from servd.capacity.measured import (
    Given,
    MeasuredService,
    Measurements,
    UnmeasuredError,
    measurements,
    measurements_of,
    network,
)
from servd.capacity.station import Demand, Station
from servd.wire.shm_counters import Work

from support.plans import plan_of

WEB = MeasuredService(
    "web", "app", True, 2, None, None, ["model"], 1000, 60.0, 5.4, 0.0, 4.5, 900
)  # fmt: skip
MODEL = MeasuredService(
    "model", "app", False, 1, 4, 10, [], 2000, 40.0, 0.8, 10.0, 2.0, 2000
)  # fmt: skip


def measured(*services: MeasuredService) -> Measurements:
    return Measurements(2, list(services))


def test_a_demand_is_without_waits_and_without_what_is_called() -> None:
    model, web = network(measured(MODEL, WEB), ["web"], Given()).nodes
    assert model.station == Station(1, 2, 4, 10)
    assert (model.demand.delay, model.demand.cpu) == pytest.approx((0.019, 0.001))
    assert model.demand.variability == pytest.approx(0.0)  # 20 ms each
    assert web.calls == {"model": 2.0}
    # 60 ms, of which twice 25 ms are those of the model with its queue, and 5 ms the CPU's
    assert (web.demand.delay, web.demand.cpu) == pytest.approx((0.005, 0.005))
    assert web.demand.variability == pytest.approx(0.5)


def test_what_is_given_is_taken_for_what_was_not_measured() -> None:
    never = replace(WEB, requests=0, seconds=0, squares=0, cpu_seconds=0, cpu_requests=0)
    with pytest.raises(UnmeasuredError, match=r"web \(0 requests\).*--service-time web=TIME"):
        network(measured(MODEL, never), ["web"], Given())
    for one_by_one in (replace(WEB, cpu_requests=0), replace(MODEL, cpu_requests=0)):
        both = {"model": MODEL, "web": WEB} | {one_by_one.name: one_by_one}
        with pytest.raises(UnmeasuredError, match="at several a second"):
            network(measured(*both.values()), ["web"], Given())
    given = Given({"web": Demand(0.01, 0.002), "model": Demand(0.02, 0.0)})
    found = network(measured(MODEL, never), ["web"], given)
    assert [node.demand for node in found.nodes] == [Demand(0.02, 0.0), Demand(0.01, 0.002)]
    assert found.nodes[1].calls == {"model": 1.0}
    assert found.notes == [
        "web is taken to call model once for each request (--calls web:model=N says otherwise)"
    ]
    told = Given(given.demands, {("web", "model"): 3.0})
    assert network(measured(MODEL, never), ["web"], told).nodes[1].calls == {"model": 3.0}


def test_what_cannot_be_told_apart_is_said() -> None:
    other = replace(WEB, name="other", requests=3000)
    shared = network(measured(MODEL, WEB, other), ["web", "other"], Given())
    assert [node.calls.get("model") for node in shared.nodes] == [None, 0.5, 0.5]
    assert shared.notes == ["web, other are taken to call model equally often"]
    public = network(measured(replace(MODEL, public=True), WEB), ["web"], Given())
    assert "model is public too" in public.notes[0]
    silent = network(measured(replace(MODEL, requests=0, seconds=0), WEB), ["web"], Given())
    assert silent.notes == ["no call of model was seen"]
    rare = network(measured(replace(MODEL, requests=20), WEB), ["web"], Given())
    assert rare.notes == ["model had only 20 requests: a rough figure"]


def test_programs_and_tasks_are_left_out_and_what_no_request_reaches() -> None:
    web = replace(WEB, calls=["model", "redis", "migrate"])
    redis = MeasuredService("redis", "command", False, 1, None, None, [])
    migrate = MeasuredService("migrate", "task", False, 1, None, None, [])
    apart = MeasuredService("apart", "app", True, 1, None, None, [])
    found = network(measured(migrate, redis, MODEL, apart, web), ["web"], Given())
    assert [node.name for node in found.nodes] == ["model", "web"]
    assert "redis is left out" in found.notes[0]
    given = Given({"redis": Demand(0.001, 0.0)})
    found = network(measured(migrate, redis, MODEL, apart, web), ["web"], given)
    assert [node.name for node in found.nodes] == ["redis", "model", "web"]


def test_figures_of_a_window_are_differences() -> None:
    before = measured(replace(MODEL, requests=500, seconds=30.0))
    found = measured(MODEL, WEB).since(before)
    assert (found.services[0].requests, found.services[0].seconds) == (1500, 10.0)
    assert found.services[1] == WEB


def test_measurements_of_a_plan() -> None:
    services: dict[str, Any] = {
        "model": {"app": "m:app", "limits": {"concurrency": 4, "queue": 3}},
        "site": {"app": "s:app", "interface": "wsgi", "threads": 8, "listen": ":80"},
        "web": {"app": "w:app", "listen": ":8000", "workers": 3, "depends_on": ["model"]},
        "redis": {"command": ("redis-server",)},
        "once": {"command": ("true",), "kind": "task"},
        "far": {"external": "http://far:8000"},
    }
    found = measurements(plan_of(services), 2, {"web": Work(5, 1.0, 0.5, 0.1, 0.2, 4)})
    rows = {s.name: (s.kind, s.public, s.workers, s.places, s.queue) for s in found.services}
    assert rows == {
        "model": ("app", False, 1, 4, 3),
        "site": ("app", True, 1, 8, None),  # WSGI: a thread for each request, the others wait
        "web": ("app", True, 3, None, None),
        "redis": ("command", False, 1, None, None),
        "once": ("task", False, 1, None, None),
        "far": ("external", False, 1, None, None),
    }
    web = next(s for s in found.services if s.name == "web")
    assert (web.requests, web.waited_seconds, web.cpu_requests) == (5, 0.1, 4)
    assert web.response_seconds == pytest.approx(0.22)
    answer = {"cpus": 2, "services": [{k: getattr(web, k) for k in web.__slots__}]}
    assert measurements_of(answer) == Measurements(2, [web])
