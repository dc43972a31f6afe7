"""All services together: first start, reload, stop, on a virtual clock and with fake workers."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from servd.core.events import Event
from servd.plan.diff import diff
from servd.plan.model import MOST_STARTUPS, Plan
from servd.supervisor.apply.mode import FIRST_START, MANUAL, RELOAD, ApplyMode
from servd.supervisor.apply.transaction import ApplyError
from servd.supervisor.io.messages import WorkerMessage
from servd.supervisor.supervisor import start_budget, stop_budget
from servd.wire.graces import KILL_SECONDS, OLDEST_DRAIN_SECONDS, STOP_SECONDS

from support.fake_worker import NEVER, Fakes, Fleet, Script
from support.virtual_time import now, virtual_time


def app(name: str, *keys: str, listen: str = "127.0.0.1:0") -> str:
    """The text of a service of servd's own workers."""
    return "\n".join((f"[services.{name}]", 'app = "main:app"', f'listen = "{listen}"', *keys, ""))


def command(name: str, *keys: str) -> str:
    """The text of a program that listens nowhere."""
    return "\n".join((f"[services.{name}]", 'command = ["sleep", "9"]', *keys, ""))


def task(name: str, *keys: str) -> str:
    return command(name, 'kind = "task"', *keys)


OTHER = 'env = { A = "1" }'
"""A key that rolls."""

ALONE = 'ready = "notify"\nactivation = "self"\nlisten = "127.0.0.1:4567"'
"""Keys of a program that binds its own address."""

DONE = Script(ready_after=0.0, dies_after=2.0, status=0)
DIES = Script(dies_after=0.5)


# first start


@virtual_time
async def test_a_first_start_is_settled_when_all_are_ready(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    fakes.plays("slow", Script(ready_after=7.0))
    assert await fleet.start(app("slow") + app("web", "workers = 2")) == {}
    assert now() == 7.0
    assert fleet.states == {"slow": "ready", "web": "ready"}
    assert fakes.states("web") == ["starting", "ready"]
    assert fleet.supervisor.summary == "2 of 2 services ready"


@virtual_time
async def test_services_that_need_nothing_of_each_other_start_at_the_same_time(
    fakes: Fakes,
) -> None:
    await Fleet(fakes).start(app("a") + app("b") + app("c", "depends_on = ['a', 'b']"))
    assert [fakes.times(name, "started") for name in "abc"] == [[0.0], [0.0], [1.0]]


@virtual_time
async def test_an_address_that_cannot_be_had_fails_its_service_alone(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    text = app("bad", listen="fd:nobody") + app("needs", "depends_on = ['bad']") + app("web")
    failed = await fleet.start(text)
    assert list(failed) == ["bad"]
    assert "no inherited socket is named nobody" in failed["bad"]
    assert fleet.states == {"bad": "failed", "needs": "waiting", "web": "ready"}
    assert fleet["needs"].error == "waiting for bad"
    assert not fakes.of("needs")
    assert fleet.supervisor.summary == "1 of 3 services ready; bad: failed, needs: waiting"


@virtual_time
async def test_an_address_that_was_missing_is_taken_at_the_next_reload(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    await fleet.start(app("bad", listen="fd:nobody") + app("needs", "depends_on = ['bad']"))
    await fleet.apply(app("bad") + app("needs", "depends_on = ['bad']"))
    await asyncio.sleep(5.0)
    assert fleet.states == {"bad": "ready", "needs": "ready"}
    assert fleet["needs"].error == ""


@virtual_time
async def test_dependents_of_what_dies_at_its_start_begin_once_it_is_ready(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    fakes.plays("db", DIES, DIES, DIES, Script())
    keys = ("timeouts.startup = 2", "restart.backoff = 10")
    failed = await fleet.start(app("db", *keys) + app("api", "depends_on = ['db']"))
    assert now() == 2.0
    assert failed == {"db": "worker 0: exited with status 1"}
    assert fleet.states == {"db": "backoff", "api": "waiting"}
    await fleet["api"].milestones.ready.wait()
    assert fleet.states == {"db": "ready", "api": "ready"}
    assert len(fakes.of("db")) == 4
    assert fakes.times("api", "started") == fakes.times("db", "accepts")
    assert len(fakes.logged(Event.SERVICE_WAITING, waiting_for="db")) == 1


@virtual_time
async def test_what_is_given_up_is_settled_at_once(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    fakes.plays("db", replace(DIES, failed="no database"))
    failed = await fleet.start(app("db", 'restart.policy = "never"'))
    assert failed == {"db": "worker 0: no database"}
    assert now() == 0.5
    assert fleet.states == {"db": "failed"}
    (event,) = fakes.logged(Event.SERVICE_CANNOT_START)
    assert (event["error"], event["exit_status"]) == ("worker 0: no database", 1)


@pytest.mark.parametrize(
    ("condition", "needed", "seconds"),
    [
        ("started", command("db", 'ready = "notify"'), 0.0),
        ("ready", command("db", 'ready = "notify"'), 4.0),
        ("completed", task("db"), 2.0),
        ("ready", task("db"), 2.0),
    ],
)
def test_a_dependent_starts_when_its_condition_is_met(
    fakes: Fakes, condition: str, needed: str, seconds: float
) -> None:
    @virtual_time
    async def test() -> None:
        fakes.plays("db", DONE if "task" in needed else Script(ready_after=4.0))
        needs = f"depends_on = [{{ service = 'db', condition = '{condition}' }}]"
        assert await Fleet(fakes).start(needed + app("web", needs)) == {}
        assert fakes.times("web", "started") == [seconds]

    test()


@virtual_time
async def test_a_task_that_fails_leaves_its_dependents_waiting(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    fakes.plays("job", Script(ready_after=0.0, dies_after=2.0, status=3))
    failed = await fleet.start(task("job") + app("web", "depends_on = ['job']"))
    assert failed == {"job": "worker 0: exited with status 3"}
    assert fleet.states == {"job": "failed", "web": "waiting"}


@virtual_time
async def test_a_service_that_is_kept_stopped_listens_nowhere(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    assert await fleet.start(app("web", "workers = 0")) == {}
    assert fleet.states == {"web": "stopped"}
    assert not fleet.context.pool.bound
    assert fleet.supervisor.summary == "0 of 0 services ready"


@virtual_time
async def test_addresses_are_taken_before_anything_is_waited_for(fakes: Fakes) -> None:
    """Clients of a dependent wait in its queue instead of being refused."""
    fleet = Fleet(fakes)
    await fleet.apply(app("db") + app("web", "depends_on = ['db']"), FIRST_START)
    assert not fakes.of("web")
    assert sum(not item.internal for item in fleet.context.pool.bound.values()) == 2


# reload: what is replaced


@virtual_time
async def test_a_roll_serves_with_no_fewer_workers_than_before(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    await fleet.start(app("web", "workers = 2"))
    ended = await fleet.apply(app("web", "workers = 2", OTHER))
    assert now() == 2.0
    assert [w.is_alive() for w in fakes.of("web", 1)] == [True, True]
    assert fakes.accepting("web") == fakes.of("web", 2)
    assert fakes.least_accepting("web", since=1.0) == 2
    assert fleet["web"].generation == 2
    await asyncio.gather(*ended)
    assert now() == 2.5
    assert not fakes.alive("web", 1)
    assert fakes.states("web") == ["starting", "ready", "rolling", "ready"]


@virtual_time
async def test_a_roll_that_fails_leaves_the_old_as_it_was(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    await fleet.start(app("web", "workers = 2"))
    fakes.plays("web", replace(DIES, failed="a broken edit"), generation=2, slot=1)
    with pytest.raises(ApplyError, match="web: worker 1: a broken edit"):
        await fleet.apply(app("web", "workers = 2", OTHER))
    assert fleet["web"].generation == 1
    assert fakes.accepting("web") == fakes.of("web", 1)
    assert not fakes.alive("web", 2)
    assert [w.orders for w in fakes.of("web", 2)] == [[], []]
    assert not any(w.signals or w.asked for w in fakes.of("web", 1))
    assert fleet.states == {"web": "ready"}
    assert fleet["web"].error == ""
    assert fleet["web"].restarts == 0
    (died,) = fakes.logged(Event.WORKER_DIED)
    assert died["next_action"] == "new generation abandoned"


@virtual_time
async def test_a_failure_undoes_every_change_of_the_reload(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    await fleet.start(app("a") + app("b") + app("old"))
    fakes.plays("b", Script(dies_after=5.0, ready_after=NEVER), generation=2)
    with pytest.raises(ApplyError, match=r"^b: "):
        await fleet.apply(app("a", OTHER) + app("b", OTHER) + app("new"))
    assert {name: s.generation for name, s in fleet.supervisor.services.items()} == {
        "a": 1, "b": 1, "old": 1,
    }  # fmt: skip
    assert [len(fakes.alive(name)) for name in ("a", "b", "old", "new")] == [1, 1, 1, 0]
    assert fleet.supervisor.plan.by_name.keys() == {"a", "b", "old"}


@virtual_time
async def test_a_number_of_a_generation_is_never_used_twice(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    await fleet.start(app("web"))
    fakes.plays("web", DIES, generation=2)
    with pytest.raises(ApplyError):
        await fleet.apply(app("web", OTHER))
    await fleet.apply(app("web", OTHER))
    assert fleet["web"].generation == 3


@virtual_time
async def test_a_worker_that_dies_before_the_commit_undoes_it(fakes: Fakes) -> None:
    """It was ready, but the other service took longer."""
    fleet = Fleet(fakes)
    await fleet.start(app("web") + app("slow"))
    fakes.plays("web", Script(dies_after=3.0), generation=2)
    fakes.plays("slow", Script(ready_after=9.0), generation=2)
    with pytest.raises(ApplyError, match=r"^web: worker 0: exited with status 1"):
        await fleet.apply(app("web", OTHER) + app("slow", OTHER))
    assert fleet.states == {"web": "ready", "slow": "ready"}
    assert fakes.accepting("web") == fakes.of("web", 1)


@virtual_time
async def test_a_surge_goes_in_batches(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    keys = ("workers = 3", "rollout.max_surge = 2")
    await fleet.start(app("web", *keys))
    await asyncio.gather(*await fleet.apply(app("web", *keys, OTHER)))
    assert fakes.times("web", "started") == [0.0] * 3 + [1.0, 1.0, 2.5]
    assert fakes.times("web", "signalled") == [2.0, 2.0, 3.5]
    assert fakes.least_accepting("web", since=1.0) == 3
    assert fleet["web"].state == "ready"
    assert [w.slot for w in fakes.accepting("web")] == [0, 1, 2]


@virtual_time
async def test_a_roll_one_by_one_has_one_more_worker_at_a_time(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    keys = ("workers = 3", 'rollout.strategy = "one-by-one"')
    await fleet.start(app("web", *keys))
    await asyncio.gather(*await fleet.apply(app("web", *keys, OTHER)))
    assert fakes.times("web", "started")[3:] == [1.0, 2.5, 4.0]
    assert fakes.times("web", "signalled") == [2.0, 3.5, 5.0]
    assert fakes.least_accepting("web", since=1.0) == 3


@virtual_time
async def test_a_roll_one_by_one_that_fails_puts_the_old_back(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    keys = ("workers = 3", 'rollout.strategy = "one-by-one"')
    await fleet.start(app("web", *keys))
    fakes.plays("web", DIES, generation=2, slot=2)
    with pytest.raises(ApplyError, match="web: worker 2: exited with status 1"):
        await fleet.apply(app("web", *keys, OTHER))
    assert fleet["web"].generation == 1
    assert fleet["web"].state == "ready"
    assert sorted(w.slot for w in fakes.accepting("web")) == [0, 1, 2]
    assert not fakes.alive("web", 2)
    assert fakes.least_accepting("web", since=1.0) == 3
    assert [w.slot for w in fakes.of("web", 1)] == [0, 1, 2, 1, 0]


@virtual_time
async def test_a_program_with_an_address_of_its_own_ends_before_the_next_starts(
    fakes: Fakes,
) -> None:
    fleet = Fleet(fakes)
    await fleet.start(command("db", ALONE))
    await fleet.apply(command("db", ALONE, OTHER))
    assert fakes.done("started", "signalled", "reaped") == [
        ("db", "started"), ("db", "signalled"), ("db", "reaped"), ("db", "started"),
    ]  # fmt: skip
    assert fleet.states == {"db": "ready"}


@virtual_time
async def test_a_program_with_an_address_of_its_own_starts_again_when_the_next_fails(
    fakes: Fakes,
) -> None:
    fleet = Fleet(fakes)
    await fleet.start(command("db", ALONE))
    fakes.plays("db", DIES, generation=2)
    with pytest.raises(ApplyError, match="db: worker 0"):
        await fleet.apply(command("db", ALONE, OTHER))
    assert fleet.states == {"db": "ready"}
    assert fleet["db"].generation == 1
    assert len(fakes.alive("db", 1)) == 1


@virtual_time
async def test_what_interrupts_waits_for_all_that_may_fail_harmlessly(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    await fleet.start(command("db", ALONE) + app("web"))
    fakes.plays("web", Script(ready_after=NEVER, dies_after=8.0), generation=2)
    with pytest.raises(ApplyError, match=r"^web"):
        await fleet.apply(command("db", ALONE, OTHER) + app("web", OTHER))
    assert not fakes.of("db")[0].signals


@virtual_time
async def test_a_switch_accepts_only_after_the_old_does_not_any_more(fakes: Fakes) -> None:
    """Plain and TLS workers must not accept from one socket."""
    fleet = Fleet(fakes)
    fakes.plays("web", Script(closes_after=2.0, drains_for=9.0), generation=1)
    await fleet.start(app("web", "workers = 2"))
    plan = fakes.plan(app("web", "workers = 2", OTHER))
    (change,) = diff(fleet.supervisor.plan, plan)
    await fleet.supervisor.apply([replace(change, kind="switch")], plan)
    assert fakes.done("accepts", "accepts no more")[2:] == [
        ("web", "accepts no more"), ("web", "accepts no more"),
        ("web", "accepts"), ("web", "accepts"),
    ]  # fmt: skip
    assert fakes.accepting("web") == fakes.of("web", 2)
    assert now() == 4.0


@virtual_time
async def test_a_worker_that_does_not_take_the_accept_undoes_the_roll(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    await fleet.start(app("web"))
    fakes.plays("web", Script(answers="it is broken"), generation=2)
    with pytest.raises(ApplyError, match="did not apply the change: it is broken"):
        await fleet.apply(app("web", OTHER))
    assert fakes.accepting("web") == fakes.of("web", 1)


@virtual_time
async def test_a_task_runs_again_before_its_dependents_roll(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    fakes.plays("job", DONE)
    text = task("job") + app("web", "depends_on = ['job']")
    await fleet.start(text)
    await fleet.apply(text + OTHER)
    assert fakes.times("job", "started") == [0.0, 3.0]
    assert fakes.times("web", "started") == [2.0, 5.0]
    assert fleet.states == {"job": "completed", "web": "ready"}


# reload: how many


@virtual_time
async def test_more_workers_start_beside_the_others(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    await fleet.start(app("web"))
    await fleet.apply(app("web", "workers = 3"))
    assert [(w.slot, w.accepting) for w in fakes.of("web")] == [(0, True), (1, True), (2, True)]
    assert fleet["web"].generation == 1
    assert fakes.states("web") == ["starting", "ready", "rolling", "ready"]


@virtual_time
async def test_a_scale_up_that_fails_takes_the_further_workers_away(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    await fleet.start(app("web"))
    fakes.plays("web", replace(DIES, dies_after=3.0, ready_after=NEVER), slot=2)
    with pytest.raises(ApplyError, match="web: worker 2"):
        await fleet.apply(app("web", "workers = 3"))
    await asyncio.sleep(1.0)
    assert [w.slot for w in fakes.alive("web")] == [0]
    assert not fakes.of("web")[0].signals
    assert fleet["web"].state == "ready"
    assert fleet["web"].current is not None
    assert fleet["web"].current.workers.wanted == 1


@virtual_time
async def test_fewer_workers_drain_those_of_the_highest_slots(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    await fleet.start(app("web", "workers = 3"))
    await fleet.apply(app("web"))
    assert [w.slot for w in fakes.accepting("web")] == [0]
    assert [e["worker"] for e in fakes.logged(Event.WORKER_DRAINING, reason="scaled down")] == [
        1,
        2,
    ]
    await asyncio.sleep(1.0)
    assert len(fakes.alive("web")) == 1


@virtual_time
async def test_a_scale_down_fills_a_lower_slot_before_it_drains_a_higher_one(
    fakes: Fakes,
) -> None:
    """The only ready worker is in a slot that goes."""
    fleet = Fleet(fakes)
    keys = ("restart.backoff = 100", "restart.backoff_max = 100")
    fakes.plays("web", Script(dies_after=1.5), DIES, Script(), slot=0)
    await fleet.start(app("web", "workers = 2", *keys))
    await asyncio.sleep(5.0)
    assert fleet.states == {"web": "degraded"}
    assert [w.slot for w in fakes.accepting("web")] == [1]
    await fleet.apply(app("web", *keys))
    assert [w.slot for w in fakes.accepting("web")] == [0]
    assert fakes.least_accepting("web", since=5.0) == 1
    assert fleet["web"].state == "ready"


@virtual_time
async def test_what_applies_to_running_workers_is_sent_to_them(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    await fleet.start(app("web", "workers = 2"))
    await fleet.apply(app("web", "workers = 2", 'log.level = "debug"'))
    assert len(fakes.of("web")) == 2
    for worker in fakes.of("web"):
        ((do, details),) = worker.asked
        assert do == "adjust"
        assert details["log_level"] == "debug"
    assert fleet["web"].plan.definition.log.level == "debug"


@virtual_time
async def test_a_worker_that_refuses_a_live_change_has_it_undone_for_all(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    fakes.plays("web", Script(answers="no such level"), slot=1)
    await fleet.start(app("web", "workers = 2"))
    with pytest.raises(ApplyError, match="worker 1 did not apply the change: no such level"):
        await fleet.apply(app("web", "workers = 2", 'log.level = "debug"'))
    levels = [details["log_level"] for _, details in fakes.of("web")[0].asked]
    assert levels == ["debug", "info"]
    assert fleet["web"].plan.definition.log.level == "info"
    assert fleet.states == {"web": "ready"}


@virtual_time
async def test_a_live_change_is_undone_when_another_service_does_not_accept(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    await fleet.start(app("api") + app("web"))
    fakes.plays("api", Script(answers="no"), generation=2)
    with pytest.raises(ApplyError, match=r"^api"):
        await fleet.apply(app("api", OTHER) + app("web", 'log.level = "debug"'))
    levels = [details["log_level"] for _, details in fakes.of("web")[0].asked]
    assert levels == ["debug", "info"]


# reload: what goes, and what comes back


@virtual_time
async def test_a_service_is_kept_stopped_and_started_again(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    await fleet.start(app("web"))
    await asyncio.gather(*await fleet.apply(app("web", "workers = 0")))
    assert fleet.states == {"web": "stopped"}
    assert not fleet.context.pool.bound
    await fleet.apply(app("web"))
    assert fleet.states == {"web": "ready"}
    assert fleet["web"].generation == 2
    assert fakes.states("web")[2:] == ["stopping", "stopped", "ready"]


@virtual_time
async def test_what_is_stopped_and_does_not_start_again_stays_stopped(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    await fleet.start(app("web", "workers = 0"))
    fakes.plays("web", DIES)
    with pytest.raises(ApplyError, match=r"^web: worker 0"):
        await fleet.apply(app("web"))
    assert fleet.states == {"web": "stopped"}
    assert not fleet.context.pool.bound
    assert not fakes.alive("web")


@virtual_time
async def test_a_service_goes_once_its_dependents_have_drained(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    fakes.plays("api", Script(drains_for=10.0))
    await fleet.start(app("db") + app("api", "depends_on = ['db']") + app("web"))
    ended = await fleet.apply(app("web"))
    assert fleet.supervisor.services.keys() == {"web"}
    assert fakes.times("api", "signalled") == [2.0]
    assert not fakes.times("db", "signalled")
    await asyncio.gather(*ended)
    assert fakes.times("db", "signalled") == fakes.times("api", "reaped") == [12.0]
    assert not fleet.supervisor.leaving


@virtual_time
async def test_a_service_goes_once_the_old_generation_that_called_it_has_drained(
    fakes: Fakes,
) -> None:
    fleet = Fleet(fakes)
    fakes.plays("api", Script(drains_for=10.0), generation=1)
    await fleet.start(app("db") + app("api", "depends_on = ['db']"))
    ended = await fleet.apply(app("api"))
    assert len(fakes.accepting("db")) == 1
    await asyncio.gather(*ended)
    assert fakes.times("db", "signalled") == fakes.times("api", "reaped")


@virtual_time
async def test_a_name_that_comes_back_while_it_goes_is_another_service(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    fakes.plays("web", Script(drains_for=20.0), generation=1)
    await fleet.start(app("web") + app("other"))
    await fleet.apply(app("other"))
    await fleet.apply(app("other") + app("web"))
    assert fleet["web"].generation == 2
    assert len(fakes.alive("web", 1)) == 1
    await asyncio.sleep(30.0)
    assert fakes.accepting("web") == fakes.of("web", 2)


@pytest.mark.parametrize(("mode", "starts"), [(RELOAD, 2), (MANUAL, 1)])
def test_a_reload_starts_again_what_pauses_and_a_manual_change_does_not(
    fakes: Fakes, mode: ApplyMode, starts: int
) -> None:
    @virtual_time
    async def test() -> None:
        fleet = Fleet(fakes)
        fakes.plays("web", DIES, Script())
        keys = ("timeouts.startup = 3", "restart.backoff = 500", "restart.backoff_max = 500")
        await fleet.start(app("web", *keys) + app("other"))
        assert fleet["web"].state == "backoff"
        text = app("web", *keys) + app("other", OTHER)
        await fleet.apply(text, mode)
        await asyncio.sleep(2.0)
        assert len(fakes.of("web")) == starts
        assert fleet["web"].state == ("ready" if starts == 2 else "backoff")

    test()


@virtual_time
async def test_a_reload_starts_again_what_was_given_up(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    fakes.plays("web", DIES, DIES, Script())
    await fleet.start(app("web", "restart.give_up_after = 2"))
    assert fleet.states == {"web": "failed"}
    await fleet.apply(app("web", "restart.give_up_after = 2"))
    await asyncio.sleep(2.0)
    assert fleet["web"].state == "ready"


@virtual_time
async def test_a_change_of_what_waits_fails_nothing(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    fakes.plays("db", DIES)
    db = app("db", 'restart.policy = "never"')
    await fleet.start(db + app("web", "depends_on = ['db']"))
    fakes.plays("db", Script())
    await fleet.apply(app("db") + app("web", "depends_on = ['db']", OTHER))
    await asyncio.sleep(3.0)
    assert fleet.states == {"db": "ready", "web": "ready"}
    (web,) = fakes.of("web")
    assert web.launch.plan.environment["A"] == "1"


@virtual_time
async def test_a_third_generation_ends_one_that_answers_nothing(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    fakes.plays("web", Script(drains_for=1000.0))
    await fleet.start(app("web", "timeouts.drain = 2000"))
    for number in (1, 2, 3):
        text = app("web", "timeouts.drain = 2000", f'env = {{ A = "{number}" }}')
        await fleet.apply(text)
        for worker in fakes.of("web", number):
            worker.report_draining(int(number == 1))
        assert len(fleet["web"].draining) == min(number, 2)
    assert [w.launch.generation for w in fakes.alive("web")] == [1, 3, 4]
    assert fakes.of("web", 2)[0].orders == ["accept", "hurry"]
    assert len(fakes.logged(Event.DRAIN_CUT_SHORT, generation=2)) == 1
    assert fakes.least_accepting("web", since=1.0) == 1


@virtual_time
async def test_generations_that_answer_requests_hold_a_third_one_up(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    fakes.plays("web", Script(drains_for=1000.0))
    await fleet.start(app("web", "timeouts.drain = 2000"))
    for number in (1, 2):
        assert fleet["web"].held_up_by is None
        await fleet.apply(app("web", "timeouts.drain = 2000", f'env = {{ A = "{number}" }}'))
    oldest = fleet["web"].held_up_by  # nothing is reported yet
    assert oldest is not None
    assert oldest.shown_drain == "web generation 1 has not exited, 34m left"
    (first,), (second,) = fakes.of("web", 1), fakes.of("web", 2)
    first.report_draining(2)
    second.report_draining(1)
    await asyncio.sleep(900)
    assert oldest.shown_drain == "web generation 1 answers 2 requests, 19m left"
    second._said(WorkerMessage(draining={"websocket": 1, "idle connection": 1}))
    assert fleet["web"].held_up_by is None
    second._said(WorkerMessage(draining={"event stream": 1}))
    assert fleet["web"].held_up_by is oldest
    first.die(0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert fleet["web"].held_up_by is None


@virtual_time
async def test_the_oldest_answers_its_requests_for_a_while_before_it_is_cut(
    fakes: Fakes,
) -> None:
    fleet = Fleet(fakes)
    fakes.plays("web", Script(drains_for=1000.0))
    await fleet.start(app("web", "timeouts.drain = 2000"))
    for number in (1, 2):
        await fleet.apply(app("web", "timeouts.drain = 2000", f'env = {{ A = "{number}" }}'))
        fakes.of("web", number)[0].report_draining(1)
    began = now()
    await fleet.apply(app("web", "timeouts.drain = 2000", 'env = { A = "3" }'))
    waited = now() - began - 1.0
    assert OLDEST_DRAIN_SECONDS <= waited <= OLDEST_DRAIN_SECONDS + 0.3
    assert [w.launch.generation for w in fakes.alive("web")] == [2, 3, 4]


@virtual_time
async def test_event_streams_and_programs_are_cut_at_once(fakes: Fakes) -> None:
    """Those who do not wait have said so."""
    fleet = Fleet(fakes)
    fakes.plays("web", Script(drains_for=1000.0))
    await fleet.start(app("web", "timeouts.drain = 2000"))
    for number in (1, 2):
        await fleet.apply(app("web", "timeouts.drain = 2000", f'env = {{ A = "{number}" }}'))
        fakes.of("web", number)[0]._said(WorkerMessage(draining={"event stream": 1}))
    began = now()
    await fleet.apply(app("web", "timeouts.drain = 2000", 'env = { A = "3" }'))
    assert now() - began < OLDEST_DRAIN_SECONDS


# the stop


@virtual_time
async def test_dependents_stop_before_what_they_need(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    fakes.plays("web", Script(drains_for=3.0))
    fakes.plays("api", Script(drains_for=2.0))
    text = app("db") + app("api", "depends_on = ['db']") + app("web", "depends_on = ['api']")
    await fleet.start(text + app("alone"))
    began = now()
    ends: list[str] = []
    assert await fleet.supervisor.stop(60.0, on_end=ends.append)
    assert [fakes.times(n, "signalled")[0] - began for n in ("alone", "web", "api", "db")] == [
        0.0, 0.0, 3.0, 5.0,
    ]  # fmt: skip
    assert ends == ["alone", "web", "api", "db"]
    assert now() - began == 5.5
    assert not fleet.supervisor.services
    assert not fleet.context.pool.bound


@virtual_time
async def test_what_does_not_end_in_time_is_killed(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    fakes.plays("web", Script(drains_for=NEVER))
    await fleet.start(app("db") + app("web", "depends_on = ['db']"))
    began = now()
    assert not await fleet.supervisor.stop(5.0)
    assert now() - began == 5.0
    assert not fakes.alive("db")
    assert not fakes.alive("web")
    assert len(fakes.logged(Event.SHUTDOWN_TIMEOUT, seconds=5.0)) == 1


@virtual_time
async def test_a_worker_that_has_to_be_killed_makes_the_stop_ungraceful(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    fakes.plays("web", Script(drains_for=NEVER))
    await fleet.start(app("web", "timeouts.drain = 3", "timeouts.shutdown = 2"))
    began = now()
    assert not await fleet.supervisor.stop(60.0)
    assert now() - began == 3.0 + 2.0 + KILL_SECONDS
    assert len(fakes.logged(Event.WORKER_KILLED)) == 1


@virtual_time
async def test_a_worker_that_was_killed_by_an_earlier_reload_does_not(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    fakes.plays("web", Script(drains_for=NEVER), Script())
    await fleet.start(app("web", "timeouts.drain = 3"))
    await fleet.apply(app("web", OTHER))
    await asyncio.sleep(30.0)
    assert len(fakes.logged(Event.WORKER_KILLED)) == 1
    assert await fleet.supervisor.stop(60.0)


@virtual_time
async def test_a_program_has_exactly_its_drain_until_it_is_killed(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    fakes.plays("db", Script(drains_for=NEVER))
    await fleet.start('[services.db]\ncommand = ["sleep"]\ntimeouts.drain = 2')
    began = now()
    assert not await fleet.supervisor.stop(60.0)
    assert now() - began == 2.0


@virtual_time
async def test_a_stop_during_the_first_start_ends_what_starts_and_what_waits(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    fakes.plays("db", Script(ready_after=NEVER))
    text = app("db") + app("web", "depends_on = ['db']")
    await fleet.apply(text, FIRST_START)
    await asyncio.sleep(1.0)
    fleet.context.stopping.set()
    assert await fleet.supervisor.stop(60.0)
    assert await fleet.supervisor.settled() == {}
    assert now() == 1.5
    assert not fakes.alive("db")
    assert not fakes.of("web")


@virtual_time
async def test_killing_during_a_reload_ends_old_and_new(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    await fleet.start(app("web"))
    fakes.plays("web", Script(ready_after=50.0), generation=2)
    fakes.plays("new", Script(ready_after=50.0))
    applying = asyncio.ensure_future(fleet.apply(app("web", OTHER) + app("new")))
    await asyncio.sleep(1.0)
    assert len(fakes.alive("web")) == 2
    fleet.context.stopping.set()
    fleet.supervisor.kill()
    with pytest.raises(ApplyError):
        await applying
    assert now() == 2.0
    assert not fakes.alive("web")
    assert not fakes.alive("new")
    assert await fleet.supervisor.stop(10.0)


@virtual_time
async def test_a_reload_that_is_cancelled_is_undone(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    await fleet.start(app("web"))
    fakes.plays("web", Script(ready_after=50.0), generation=2)
    applying = asyncio.ensure_future(fleet.apply(app("web", OTHER)))
    await asyncio.sleep(1.0)
    applying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await applying
    assert not fakes.alive("web", 2)
    assert fakes.accepting("web") == fakes.of("web", 1)


@virtual_time
async def test_a_commit_that_is_cancelled_is_whole(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    fakes.plays("web", Script(closes_after=5.0, drains_for=6.0), generation=1)
    await fleet.start(app("web"))
    applying = asyncio.ensure_future(fleet.apply(app("web", OTHER)))
    await asyncio.sleep(3.0)
    applying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await applying
    assert fleet["web"].generation == 2
    assert fleet.supervisor.plan.service("web").environment["A"] == "1"
    assert fakes.accepting("web") == fakes.of("web", 2)


# how long it may take


def test_a_stop_may_take_the_longest_chain_of_drains(fakes: Fakes) -> None:
    plan = fakes.plan(
        app("db", "timeouts.drain = 5")
        + app("api", "timeouts.drain = 7", "depends_on = ['db']")
        + app("web", "timeouts.drain = 1", "depends_on = ['api']")
        + app("alone", "timeouts.drain = 10")
    )
    each = 5.0 + KILL_SECONDS  # timeouts.shutdown, and what a worker of its own takes
    assert stop_budget(plan) == 5 + 7 + 1 + 3 * each + STOP_SECONDS
    assert stop_budget(plan, grace=0.0) == 13.0 + 3 * each
    program = '[services.program]\ncommand = ["sleep"]\ntimeouts.drain = 5'
    assert stop_budget(fakes.plan(program), grace=0.0) == 5.0
    assert stop_budget(Plan()) == STOP_SECONDS


def test_a_start_may_take_as_if_each_service_waited_for_another(fakes: Fakes) -> None:
    plan = fakes.plan(app("a", "timeouts.startup = 5") + app("b", "timeouts.startup = 20"))
    assert start_budget(plan) == 2 * MOST_STARTUPS * 20 + 10
    assert start_budget(Plan()) == 10


# a change of what still waits for its start


WAITS = ("depends_on = ['db']", ALONE)
LATE = ("timeouts.startup = 20", "restart.backoff = 5")


async def waiting(fakes: Fakes) -> Fleet:
    """A program that waits for `db`, which is ready at last at 6.5 s."""
    fleet = Fleet(fakes)
    fakes.plays("db", DIES, Script())
    await fleet.apply(app("db", *LATE) + command("web", *WAITS) + app("other"), FIRST_START)
    await asyncio.sleep(2.0)
    assert not fakes.of("web")
    return fleet


@virtual_time
async def test_what_waits_does_not_begin_while_its_successor_is_prepared(fakes: Fakes) -> None:
    """Else both stand on one address, and the first is lost from sight."""
    fleet = await waiting(fakes)
    fakes.plays("other", Script(ready_after=12.0), generation=2)
    text = app("db", *LATE, 'log.level = "debug"') + command("web", *WAITS, OTHER)
    await fleet.apply(text + app("other", OTHER))
    await asyncio.sleep(30.0)
    assert [w.launch.plan.environment.get("A") for w in fakes.of("web")] == ["1"]
    assert fleet.states == {"db": "ready", "web": "ready", "other": "ready"}


@virtual_time
async def test_what_waited_begins_once_after_a_change_of_it_was_undone(fakes: Fakes) -> None:
    fleet = await waiting(fakes)
    fakes.plays("web", DIES, Script())
    with pytest.raises(ApplyError, match=r"^web"):
        await fleet.apply(app("db", *LATE, OTHER) + command("web", *WAITS, OTHER) + app("other"))
    await asyncio.sleep(30.0)
    assert len(fakes.alive("web")) == 1
    assert [w.launch.generation for w in fakes.of("web")] == [2, 1]
    assert await fleet.supervisor.stop(60.0)
    assert not fakes.alive("web")
