"""What is shown of a service, of workers that drain, and of reloads: built from fakes."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from types import SimpleNamespace
from typing import Any

import pytest

from servd.daemon.autoscaler import Autoscaler
from servd.daemon.metrics.cpu import CpuMeter
from servd.daemon.metrics.rates import RequestRates
from servd.daemon.reload.desired import DesiredState
from servd.daemon.reload.request import ReloadReport
from servd.daemon.status import (
    Coming,
    DrainStatus,
    ServiceStatus,
    View,
    WorkerCounts,
    WorkersOverride,
    reload_status,
    service_status,
)
from servd.plan.change import Change
from servd.plan.model import Plan, ServicePlan
from servd.supervisor.counters import CounterRegistry
from servd.supervisor.drain_text import waiting_for

from support.config_texts import loaded_text, plan_text

PLAN = plan_text(
    """
    [services.web]
    app = "main:app"
    listen = "127.0.0.1:0"
    workers = 2
    depends_on = ["api"]
    public_url = "https://example.org"
    [services.api]
    command = ["sleep", "9"]
    [services.self]
    command = ["sleep", "{port}"]
    listen = "127.0.0.1:8081"
    [services.job]
    kind = "task"
    command = ["true"]
    """
)


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ([], "its exit"),
        ([{}, {}], "its exit"),
        ([{"request": 1}], "1 request"),
        ([{"request": 1}, {"request": 2}], "3 requests"),
        ([{"websocket": 1}, {}, {"request": 2}], "1 websocket, 2 requests"),
    ],
)
def test_what_is_waited_for_is_counted_over_all_workers(
    counts: list[dict[str, int]], text: str
) -> None:
    assert waiting_for(counts) == text


def process(slot: int, pid: int = 0, text: str = "", **draining: int) -> Any:
    return SimpleNamespace(
        pid=pid or os.getpid(),
        slot=slot,
        launch=SimpleNamespace(generation=3, plan=PLAN.service("web")),
        state="ready",
        since="then",
        lived=5.0,
        counters=None,
        report=SimpleNamespace(draining=draining, status_text=text),
        was_ready=not text,
    )


def generation(
    number: int, *, ready: int = 0, wanted: int = 2, plan: ServicePlan | None = None, **more: Any
) -> Any:
    workers = SimpleNamespace(
        wanted=wanted,
        ready_count=ready,
        processes=more.get("processes", []),
        leaving=more.get("leaving", []),
    )
    return SimpleNamespace(
        number=number,
        plan=plan or PLAN.service("web"),
        workers=workers,
        listeners=more.get("listeners", []),
    )


def service(name: str = "web", current: Any = None, **more: Any) -> Any:
    counters = CounterRegistry()
    return SimpleNamespace(
        **{
            "plan": PLAN.service(name),
            "context": SimpleNamespace(workers=SimpleNamespace(counters=counters)),
            "is_held_up": False,
            "state": "ready",
            "since": "then",
            "generation": current.number if current is not None else 0,
            "current": current,
            "upcoming": None,
            "draining": [],
            "crash_loop": False,
            "restarts": 0,
            "last_exit": None,
            "error": "",
            **more,
        }
    )


def shown(of: Any, file: Plan = PLAN) -> ServiceStatus:
    counters = of.context.workers.counters
    desired = DesiredState(loaded_text(""), file, {}, file, "then")
    follows = Autoscaler(lambda: desired, counters, lambda _: asyncio.Future())
    return service_status(of, View(CpuMeter(), RequestRates(counters), follows, desired))


def test_a_service_that_was_never_started_shows_what_it_should_be() -> None:
    status = shown(service(state="waiting"))
    assert (status.state, status.generation) == ("waiting", 0)
    assert status.workers == WorkerCounts(2, 0)
    assert status.processes == []
    assert (status.listen, status.bound_by) == (["http://127.0.0.1:0"], "servd")
    assert status.depends_on == ["api"]
    assert status.public_url == "https://example.org"
    assert (status.coming, status.by_hand, status.draining) == (None, None, [])
    assert status.error is None


def test_what_runs_is_shown_with_the_ports_that_were_bound() -> None:
    listeners = [
        SimpleNamespace(url="http://127.0.0.1:4321", plan=SimpleNamespace(internal=False)),
        SimpleNamespace(url="unix:/run/x/s/web.sock", plan=SimpleNamespace(internal=True)),
    ]
    current = generation(
        3, ready=1, wanted=4, processes=[process(0), process(1)], listeners=listeners
    )
    status = shown(service(current=current))
    assert status.generation == 3
    assert status.workers == WorkerCounts(4, 1)
    assert status.listen == ["http://127.0.0.1:4321"]
    assert [(each.worker, each.generation, each.state) for each in status.processes] == [
        (0, 3, "ready"), (1, 3, "ready"),
    ]  # fmt: skip
    first = status.processes[0]
    assert first.started_at == "then"
    assert first.rss_bytes is not None
    assert (first.requests, first.in_flight, first.rps) == (None, None, None)


def test_a_new_generation_is_on_its_way_in() -> None:
    plan = dataclasses.replace(PLAN.service("web"), workers=5)
    loading = [process(0), process(1, text="shard 1")]
    coming = generation(4, ready=1, plan=plan, processes=loading)
    status = shown(service(current=generation(3), upcoming=coming))
    assert status.coming == Coming(4, 5, 1, "shard 1")
    assert status.generation == 3


def test_all_that_drains_is_shown_also_of_the_generation_that_stays() -> None:
    old = generation(1, leaving=[process(1, 12, request=2), process(0, 11, request=1)])
    silent = generation(2, leaving=[process(0, 13)])
    over = generation(0)
    current = generation(3, leaving=[process(2, 14, websocket=1)])
    status = shown(service(current=current, draining=[over, old, silent]))
    assert status.draining == [
        DrainStatus(1, [11, 12], "3 requests"),
        DrainStatus(2, [13], "its exit"),
        DrainStatus(3, [14], "1 websocket"),
    ]


def test_a_number_of_workers_that_is_not_the_files_is_shown_with_it() -> None:
    scaled = dataclasses.replace(PLAN.service("web"), workers=5)
    assert shown(service(plan=scaled)).by_hand == WorkersOverride(5, 2)
    stopped = dataclasses.replace(PLAN.service("web"), workers=0)
    assert shown(service(plan=stopped)).by_hand == WorkersOverride(0, 2)
    assert shown(service()).by_hand is None
    assert shown(service(plan=scaled), Plan()).by_hand is None  # the file has it no more


@pytest.mark.parametrize(("name", "kind"), [("web", "app"), ("api", "command"), ("job", "task")])
def test_requests_are_counted_of_apps_alone(name: str, kind: str) -> None:
    status = shown(service(name))
    assert status.kind == kind
    counted = (0, 0.0) if kind == "app" else (None, None)
    assert (status.requests, status.rps) == counted
    assert (status.p50_ms, status.p99_ms) == (None, None)


def test_who_binds_the_address_is_shown() -> None:
    assert shown(service("self")).bound_by == "program"
    assert (shown(service("self")).listen, shown(service("api")).listen) == (
        ["http://127.0.0.1:8081"],
        [],
    )
    assert shown(service("api")).bound_by is None
    assert shown(service("job")).bound_by is None


def test_why_it_is_not_well_is_shown() -> None:
    status = shown(service(state="backoff", error="worker 0 exited", crash_loop=True, restarts=4))
    assert (status.state, status.since, status.error, status.crash_loop, status.restarts) == (
        "backoff", "then", "worker 0 exited", True, 4,
    )  # fmt: skip


def test_a_reload_is_shown_with_its_changes() -> None:
    report = ReloadReport(
        "rolled_back", "now", "SIGHUP", (Change("web", "remove", before=PLAN.service("web")),),
        error="oh", service="web", last_lines=("no",), since="then", seconds=1.5,
    )  # fmt: skip
    status = reload_status(report)
    assert (status.outcome, status.at, status.since, status.why) == (
        "rolled_back", "now", "then", "SIGHUP",
    )  # fmt: skip
    assert (status.error, status.service, status.last_lines) == ("oh", "web", ["no"])
    assert [(row["service"], row["kind"]) for row in status.changes] == [("web", "remove")]


def test_a_reload_that_waits_is_shown_with_what_it_waits_for() -> None:
    draining = SimpleNamespace(shown_drain="web generation 4 answers 2 requests, 11m left")
    waits = service(current=generation(5), is_held_up=True, held_up_by=draining)
    said = "a reload waits: web generation 4 answers 2 requests, 11m left"
    assert shown(waits).notices == [said]
    assert shown(service(current=generation(5), is_held_up=True, held_up_by=None)).notices == []
