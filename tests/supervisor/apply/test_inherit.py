"""Taking the place of a previous daemon: next to it until all is ready, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

import pytest

from servd.core.errors import ServdError
from servd.core.events import Event
from servd.plan.diff import diff
from servd.plan.model import Plan
from servd.supervisor.apply.inherit import (
    AwaitPrevious,
    Inherit,
    InheritedService,
    InheritedState,
    InheritTask,
    inherited_service,
    task_mark,
)
from servd.supervisor.apply.mode import take_over
from servd.supervisor.apply.step import Step
from servd.supervisor.apply.steps import Interrupt, Start, Task
from servd.supervisor.apply.transaction import ApplyError
from servd.supervisor.sockets.pool import unix_key

from support.fake_worker import NEVER, Fakes, Fleet, Script
from support.virtual_time import now, virtual_time

SERVES = InheritedService(serves=True)
DOWN = InheritedService(serves=False)
DIES = Script(dies_after=0.5)


def app(name: str, *keys: str) -> str:
    return "\n".join(
        (f"[services.{name}]", 'app = "main:app"', 'listen = "127.0.0.1:0"', *keys, "")
    )


def alone(name: str, *keys: str, port: int = 4567) -> str:
    """The text of a program that binds its own address."""
    return "\n".join(
        (f"[services.{name}]", 'command = ["sleep", "9"]', f'listen = "127.0.0.1:{port}"',
         'activation = "self"', 'ready = "notify"', *keys, "")
    )  # fmt: skip


def task(name: str, *keys: str) -> str:
    return "\n".join((f"[services.{name}]", 'command = ["sleep", "9"]', 'kind = "task"', *keys, ""))


class FakePrevious:
    """The daemon before: its workers accept no more, and end, when the test says so."""

    def __init__(self, refusal: str = "", releases: float = 0.0, ends: float = 0.0) -> None:
        self.refusal, self.releases, self.ends = refusal, releases, ends
        self.agreed: list[tuple[float, set[str]]] = []

    async def agree(self, at_once: Collection[str]) -> None:
        self.agreed.append((now(), set(at_once)))
        if self.refusal:
            raise ServdError(self.refusal)

    async def released(self, name: str) -> None:
        await asyncio.sleep(self.releases)

    async def ended(self, name: str) -> None:
        await asyncio.sleep(self.ends)


async def take(
    fleet: Fleet, text: str, previous: FakePrevious, **services: InheritedService
) -> list[asyncio.Task[Any]]:
    """Takes the place of a daemon with these services."""
    return await fleet.apply(text, take_over(InheritedState(services, previous)))


@virtual_time
async def test_the_previous_daemon_is_asked_once_all_is_ready(fakes: Fakes) -> None:
    fleet, previous = Fleet(fakes), FakePrevious()
    fakes.plays("slow", Script(ready_after=6.0))
    await take(fleet, app("web") + app("slow"), previous, web=SERVES, slow=SERVES)
    assert previous.agreed == [(6.0, set())]
    assert fleet.states == {"web": "ready", "slow": "ready"}
    assert len(fakes.accepting("web")) == 1


@virtual_time
async def test_nothing_accepts_before_all_is_ready(fakes: Fakes) -> None:
    """Else a daemon that is dismissed would take requests with it."""
    fleet = Fleet(fakes)
    fakes.plays("slow", Script(ready_after=6.0))
    text = app("web") + app("slow")
    await take(fleet, text, FakePrevious(), web=SERVES, slow=SERVES)
    assert fakes.times("web", "accepts") == [6.0]


@virtual_time
async def test_a_refusal_undoes_everything(fakes: Fakes) -> None:
    fleet, previous = Fleet(fakes), FakePrevious(refusal="it is stopping")
    with pytest.raises(ServdError, match=r"^it is stopping$"):
        await take(fleet, app("web") + app("api"), previous, web=SERVES, api=SERVES)
    assert not fakes.alive("web")
    assert not fakes.alive("api")
    assert not fleet.supervisor.services
    assert fleet.supervisor.plan == Plan()
    assert len(fakes.logged(Event.RELOAD_UNDONE)) == 1
    assert await fleet.supervisor.stop(10.0)


@virtual_time
async def test_what_served_before_has_to_be_ready_here(fakes: Fakes) -> None:
    fleet, previous = Fleet(fakes), FakePrevious()
    fakes.plays("web", DIES)
    with pytest.raises(ApplyError, match=r"^web: worker 0"):
        await take(fleet, app("web") + app("api"), previous, web=SERVES, api=SERVES)
    assert not previous.agreed
    assert not fakes.alive("api")


@virtual_time
async def test_what_did_not_serve_before_fails_nothing_now(fakes: Fakes) -> None:
    fleet, previous = Fleet(fakes), FakePrevious()
    fakes.plays("bad", DIES)
    bad = app("bad", "timeouts.startup = 5", "restart.backoff = 100", "restart.backoff_max = 100")
    await take(fleet, bad + app("web"), previous, bad=DOWN, web=SERVES)
    assert previous.agreed == [(1.0, set())]
    await asyncio.sleep(20.0)
    assert fleet.states == {"bad": "backoff", "web": "ready"}


@virtual_time
async def test_what_must_not_accept_beside_the_old_waits_until_it_is_released(
    fakes: Fakes,
) -> None:
    """Here the old has TLS, the new is plain."""
    fleet, previous = Fleet(fakes), FakePrevious(releases=4.0)
    path = f"{fakes.folder}/web.sock"
    old = InheritedService(serves=True, client_auth="none", sockets=(unix_key(path),))
    await take(fleet, app("web").replace("127.0.0.1:0", f"unix:{path}"), previous, web=old)
    assert previous.agreed == [(1.0, {"web"})]
    assert fakes.times("web", "accepts") == [5.0]


@virtual_time
async def test_a_program_with_an_address_of_its_own_starts_when_the_old_has_ended(
    fakes: Fakes,
) -> None:
    fleet, previous = Fleet(fakes), FakePrevious(ends=8.0)
    await take(fleet, alone("db") + app("web"), previous, db=SERVES, web=SERVES)
    assert previous.agreed == [(1.0, set())]
    await asyncio.sleep(20.0)
    assert fakes.times("db", "started") == [9.0]
    assert fleet.states == {"db": "ready", "web": "ready"}


@virtual_time
async def test_a_task_that_was_completed_before_is_not_run_again(fakes: Fakes) -> None:
    fleet, previous = Fleet(fakes), FakePrevious()
    text = task("job", 'run = "once"') + app("web", "depends_on = ['job']")
    mark = task_mark(fakes.plan(text).service("job"))
    done = InheritedService(serves=True, completed=mark)
    await take(fleet, text, previous, job=done, web=SERVES)
    assert not fakes.of("job")
    assert fleet.states == {"job": "completed", "web": "ready"}
    current = fleet["job"].current
    assert current is not None
    assert inherited_service(fleet["job"]).completed == mark


@virtual_time
async def test_a_stop_during_a_take_over_ends_what_waits_for_the_old(fakes: Fakes) -> None:
    fleet, previous = Fleet(fakes), FakePrevious(ends=1000.0)
    await take(fleet, alone("db"), previous, db=SERVES)
    fleet.context.stopping.set()
    assert await fleet.supervisor.stop(10.0)
    assert now() == 0.0
    assert not fakes.of("db")


def step_of(fakes: Fakes, text: str, name: str, **services: InheritedService) -> Step:
    """The step that takes over one of the services in `text`."""
    found: list[Step] = []

    @virtual_time
    async def find() -> None:
        fleet = Fleet(fakes)
        plan = fakes.plan(text)
        mode = take_over(InheritedState(services, FakePrevious()))
        changes = diff(Plan(), plan)
        new = {c.service: fleet.supervisor._service(c.plan) for c in changes}
        found.append(fleet.supervisor._steps(changes, new, mode)[name])

    find()
    return found[0]


NEEDS_BAD = app("bad") + app("web", "depends_on = ['bad']")


@pytest.mark.parametrize(
    ("text", "services", "kind"),
    [
        (app("web"), {"web": SERVES}, Inherit),
        (app("web"), {}, Inherit),
        (app("web"), {"web": DOWN}, Start),
        (app("web", "workers = 0"), {"web": DOWN}, Inherit),
        (NEEDS_BAD, {"bad": DOWN}, Start),
        (NEEDS_BAD, {"bad": DOWN, "web": SERVES}, Inherit),
        (alone("web"), {"web": SERVES}, AwaitPrevious),
        (alone("web"), {}, Interrupt),
        (alone("web"), {"db": InheritedService(serves=True, binds=("127.0.0.1:4567",))},
         AwaitPrevious),
        (alone("web"), {"db": InheritedService(serves=True, sockets=("127.0.0.1|4567",))},
         AwaitPrevious),
        (alone("web"), {"db": InheritedService(serves=True, sockets=("127.0.0.1|1",))}, Interrupt),
        (task("web"), {}, Task),
        (task("web"), {"web": InheritedService(serves=True, completed="mark")}, Task),
        (task("web"), {"web": DOWN}, AwaitPrevious),
        (task("web", 'run = "once"'), {"web": InheritedService(serves=True, completed="another")},
         Task),
    ],
)  # fmt: skip
def test_how_a_service_is_taken_over_follows_from_what_was_there(
    fakes: Fakes, text: str, services: dict[str, InheritedService], kind: type[Step]
) -> None:
    assert type(step_of(fakes, text, "web", **services)) is kind


def test_a_task_of_the_same_definition_is_taken_for_completed(fakes: Fakes) -> None:
    text = task("web", 'run = "once"')
    mark = task_mark(fakes.plan(text).service("web"))
    same = step_of(fakes, text, "web", web=InheritedService(serves=True, completed=mark))
    assert type(same) is InheritTask
    edited = task_mark(fakes.plan(task("web", 'run = "once"', "timeouts.drain = 1")).service("web"))
    assert edited != mark


@virtual_time
async def test_what_a_service_leaves_to_the_next_daemon(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    fakes.plays("job", Script(ready_after=0.0, dies_after=1.0, status=0))
    fakes.plays("bad", Script(ready_after=NEVER))
    starting = asyncio.ensure_future(
        fleet.start(app("web") + alone("db") + task("job") + app("bad"))
    )
    await asyncio.sleep(3.0)
    left = {name: inherited_service(s) for name, s in fleet.supervisor.services.items()}
    assert {name: found.serves for name, found in left.items()} == {
        "web": True, "db": True, "job": True, "bad": False,
    }  # fmt: skip
    assert len(left["web"].sockets) == len(left["bad"].sockets) == 1
    assert left["db"].binds == ("127.0.0.1:4567",)
    assert left["job"].completed
    assert not left["web"].completed
    starting.cancel()
