"""How each service of the previous daemon is taken over: a table, without a process."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Collection
from types import SimpleNamespace
from typing import Any, cast

import pytest

from servd.plan.change import Change
from servd.plan.model import Plan, ServicePlan
from servd.supervisor.apply.inherit import (
    AwaitPrevious,
    Inherit,
    InheritedService,
    InheritedState,
    InheritTask,
    inherited_service,
    inheriting_step,
    task_mark,
)
from servd.supervisor.apply.step import Step
from servd.supervisor.apply.steps import Interrupt, Start, Task
from servd.wire.worker_spec import TlsSpec

from support.config_texts import plan_text
from support.in_loop import in_loop, settle

PLAN = plan_text(
    """
    [services.web]
    app = "main:app"
    listen = "127.0.0.1:80"
    [services.needs]
    command = ["sleep", "9"]
    depends_on = ["web"]
    [services.own]
    command = ["sleep", "{port}"]
    listen = "127.0.0.1:90"
    [services.own-needs]
    command = ["sleep", "{port}"]
    listen = "127.0.0.1:91"
    depends_on = ["web"]
    [services.stopped]
    command = ["sleep", "9"]
    listen = "127.0.0.1:92"
    workers = 0
    [services.job]
    kind = "task"
    command = ["true"]
    [services.once]
    kind = "task"
    command = ["true"]
    run = "once"
    [services.job-needs]
    kind = "task"
    command = ["true"]
    depends_on = ["web"]
    """
)
HERE = ("127.0.0.1|80",)
SERVES = InheritedService(True)
FAILED = InheritedService(False)


class Previous:
    """The daemon before, which releases and ends what the test says."""

    def __init__(self) -> None:
        self.released_ones = {name: asyncio.Event() for name in PLAN.by_name}
        self.ended_ones = {name: asyncio.Event() for name in PLAN.by_name}

    async def agree(self, at_once: Collection[str]) -> None: ...

    async def released(self, name: str) -> None:
        await self.released_ones[name].wait()

    async def ended(self, name: str) -> None:
        await self.ended_ones[name].wait()


def step_of(
    name: str,
    old: dict[str, InheritedService],
    deferred: Collection[str] = (),
    plan: Plan = PLAN,
    previous: Previous | None = None,
) -> Step:
    service = plan.service(name)
    inherited = InheritedState(old, previous or Previous())
    change = Change(name, "add", after=service)
    return inheriting_step(change, cast("Any", SimpleNamespace(plan=service)), inherited, deferred)


def done(name: str) -> InheritedService:
    return InheritedService(True, completed=task_mark(PLAN.service(name)))


DONE_OTHERWISE = InheritedService(True, completed="another definition")


@pytest.mark.parametrize(
    ("name", "old", "deferred", "kind", "owners"),
    [
        # a service on sockets of servd
        ("web", {"web": SERVES}, (), Inherit, set()),
        ("web", {}, (), Inherit, set()),
        ("web", {"web": FAILED}, (), Start, set()),
        ("needs", {"needs": SERVES}, ("web",), Inherit, set()),
        ("needs", {"needs": FAILED}, (), Start, set()),
        ("needs", {}, ("web",), Start, set()),
        ("needs", {}, ("own",), Inherit, set()),
        # one whose program binds its address itself
        ("own", {"own": SERVES}, (), AwaitPrevious, {"own"}),
        ("own", {"own": FAILED}, (), AwaitPrevious, {"own"}),
        ("own", {}, (), Interrupt, set()),
        ("own-needs", {}, ("web",), Start, set()),
        ("own-needs", {}, (), Interrupt, set()),
        # an address that another one has there
        ("web", {"gone": InheritedService(True, binds=("127.0.0.1:80",))}, (), AwaitPrevious,
         {"gone"}),
        ("own", {"gone": InheritedService(True, binds=("127.0.0.1:90",))}, (), AwaitPrevious,
         {"gone"}),
        ("own", {"gone": InheritedService(True, sockets=("127.0.0.1|90",))}, (), AwaitPrevious,
         {"gone"}),
        ("own", {"gone": InheritedService(True, sockets=("127.0.0.1|90",)), "own": SERVES}, (),
         AwaitPrevious, {"gone", "own"}),
        ("web", {"gone": InheritedService(True, sockets=HERE)}, (), Inherit, set()),
        ("web", {"gone": InheritedService(True, binds=("127.0.0.1:8",))}, (), Inherit, set()),
        # one that is kept stopped
        ("stopped", {"stopped": FAILED}, (), Inherit, set()),
        ("stopped", {"stopped": SERVES}, (), Inherit, set()),
        ("stopped", {}, (), Inherit, set()),
        # tasks
        ("job", {}, (), Task, set()),
        ("job", {"job": done("job")}, (), Task, set()),
        ("job", {"job": FAILED}, (), AwaitPrevious, {"job"}),
        ("once", {}, (), Task, set()),
        ("once", {"once": done("once")}, (), InheritTask, set()),
        ("once", {"once": DONE_OTHERWISE}, (), Task, set()),
        ("once", {"once": FAILED}, (), AwaitPrevious, {"once"}),
        ("job-needs", {}, ("web",), Start, set()),
        ("job-needs", {"job-needs": DONE_OTHERWISE}, ("web",), Start, set()),
        ("job-needs", {"job-needs": FAILED}, ("web",), AwaitPrevious, {"job-needs"}),
    ],
)  # fmt: skip
def test_the_step_follows_from_what_the_previous_daemon_has(
    name: str,
    old: dict[str, InheritedService],
    deferred: Collection[str],
    kind: type[Step],
    owners: set[str],
) -> None:
    step = step_of(name, old, deferred)
    assert type(step) is kind
    if isinstance(step, AwaitPrevious):
        assert set(step.owners) == owners


@in_loop
async def test_a_service_that_waits_for_the_previous_daemon_starts_when_all_owners_ended() -> None:
    previous = Previous()
    old = {"web": InheritedService(True, sockets=("127.0.0.1|90",)), "own": SERVES}
    step = step_of("own", old, previous=previous)
    assert isinstance(step, AwaitPrevious)
    waiting = asyncio.ensure_future(step.until_possible())
    for name in ("own", "web"):
        await settle()
        assert not waiting.done()
        previous.ended_ones[name].set()
    await waiting


def with_tls(plan: Plan, client_auth: str) -> Plan:
    """The services with certificates, whose clients are asked for theirs so; "": without TLS."""
    tls = TlsSpec("", "", "", "", client_auth, "", "") if client_auth else None
    return Plan(tuple(dataclasses.replace(service, tls=tls) for service in plan.services))


@pytest.mark.parametrize(
    ("old", "client_auth", "owners"),
    [
        ({"web": InheritedService(True, "", sockets=HERE)}, "", set()),
        ({"web": InheritedService(True, "", sockets=HERE)}, "none", {"web"}),
        ({"web": InheritedService(True, "none", sockets=HERE)}, "", {"web"}),
        ({"web": InheritedService(True, "none", sockets=HERE)}, "optional", {"web"}),
        ({"web": InheritedService(True, "optional", sockets=HERE)}, "required", {"web"}),
        ({"web": InheritedService(True, "required", sockets=HERE)}, "required", set()),
        ({"web": InheritedService(True, "required", sockets=HERE)}, "none", set()),
        ({"web": InheritedService(True, "none", sockets=("elsewhere",))}, "required", set()),
        ({"gone": InheritedService(True, "", sockets=HERE)}, "", {"gone"}),
        ({"gone": InheritedService(True, "", sockets=("elsewhere",))}, "", set()),
        (
            {
                "gone": InheritedService(True, "", sockets=HERE),
                "web": InheritedService(True, "none", sockets=HERE),
            },
            "required",
            {"gone", "web"},
        ),
    ],
)
def test_workers_that_ask_less_or_are_of_another_service_must_leave_the_socket_first(
    old: dict[str, InheritedService], client_auth: str, owners: set[str]
) -> None:
    step = step_of("web", old, plan=with_tls(PLAN, client_auth))
    assert isinstance(step, Inherit)
    new = SimpleNamespace(public_sockets=dict.fromkeys(HERE))
    assert step._must_hand_over(cast("Any", new)) == bool(owners)
    assert step.owners == owners


@in_loop
async def test_what_must_leave_first_is_waited_for_before_the_new_accepts() -> None:
    previous = Previous()
    old = {"own": InheritedService(True, sockets=HERE)}
    step = step_of("web", old, previous=previous)
    assert isinstance(step, Inherit)
    told: list[str] = []

    async def accept() -> None:
        told.append("accept")

    workers = SimpleNamespace(
        accept=accept,
        accept_later=lambda: told.append("accept later"),
        end_probation=lambda: told.append("end probation"),
    )
    generation = SimpleNamespace(public_sockets=dict.fromkeys(HERE), workers=workers)
    step.generation = cast("Any", generation)
    step.hands_over = step._must_hand_over(cast("Any", generation))
    accepting = asyncio.ensure_future(step.accept_late())
    await settle()
    assert told == []
    previous.released_ones["own"].set()
    await accepting
    assert told == ["accept", "accept later", "end probation"]


# what a daemon leaves


def managed(name: str, *, serves: bool = False, completed: bool = False, **current: Any) -> Any:
    generation = SimpleNamespace(completed=completed, public_sockets=current)
    return SimpleNamespace(plan=PLAN.service(name), current=generation, serves=serves)


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        (managed("web", serves=True, here=None), InheritedService(True, sockets=("here",))),
        (managed("web"), InheritedService(False)),
        (managed("own", serves=True), InheritedService(True, binds=("127.0.0.1:90",))),
        (managed("job", completed=True), done("job")),
        (managed("job"), InheritedService(False)),
        (SimpleNamespace(plan=PLAN.service("web"), current=None, serves=False), FAILED),
    ],
)
def test_what_a_daemon_leaves_of_a_service(service: Any, expected: InheritedService) -> None:
    assert inherited_service(service) == expected


def test_the_mark_of_a_task_is_of_its_definition() -> None:
    def task(command: str, **keys: str) -> ServicePlan:
        more = "\n".join(f"{key} = {value}" for key, value in keys.items())
        return plan_text(f'[services.job]\nkind="task"\ncommand=["{command}"]\n{more}').service(
            "job"
        )

    assert task_mark(task("true")) == task_mark(task("true", root_path='""'))
    assert task_mark(task("true")) != task_mark(task("false"))
    assert task_mark(task("true")) != task_mark(task("true", run='"once"'))


def test_what_does_not_fit_twice_on_the_gpus_waits_for_the_end_of_the_old_workers() -> None:
    tight = Plan(tuple(dataclasses.replace(each, fits_twice=False) for each in PLAN.services))
    step = step_of("web", {"web": SERVES}, plan=tight)
    assert isinstance(step, AwaitPrevious)
    assert (set(step.owners), step.inherits) == ({"web"}, True)
    assert type(step_of("web", {}, plan=tight)) is Inherit
