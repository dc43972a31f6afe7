"""Steps that are applied as one: their order, their undo, and what is told of a failure."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Literal, cast

import pytest

from servd.core.errors import StartError
from servd.core.events import Event
from servd.plan.change import Change
from servd.supervisor.apply.removal import Remove
from servd.supervisor.apply.step import Step
from servd.supervisor.apply.transaction import ApplyError, ApplyTransaction, to_the_end
from servd.supervisor.exits import FailedStartError, WorkerExit

from support.fake_worker import Fakes
from support.virtual_time import now, virtual_time

FAILED = FailedStartError("worker 0: broke", WorkerExit(0, 1, 1, "broke", ("Traceback", "oops")))


class Log(list[tuple[float, str]]):
    """What steps did: `prepare a`, and `over: prepare a` at its end."""

    @property
    def order(self) -> list[str]:
        return [what for _, what in self]

    def at(self, what: str) -> float:
        return next(at for at, other in self if other == what)

    def moves(self, move: str) -> list[str]:
        """The services for which a move was begun, in that order."""
        return [what.removeprefix(f"{move} ") for what in self.order if what.startswith(f"{move} ")]


class Fake:
    """The moves of a step, each as long as `takes` says, or with the error that it names."""

    log: Log
    takes: Mapping[str, float]
    fails: Mapping[str, BaseException]
    change: Change

    async def _move(self, move: str) -> None:
        name = self.change.service
        self.log.append((now(), f"{move} {name}"))
        try:
            await asyncio.sleep(self.takes.get(move, 0.0))
        except asyncio.CancelledError:
            self.log.append((now(), f"cancelled {name}"))
            raise
        if move in self.fails:
            raise self.fails[move]
        self.log.append((now(), f"over: {move} {name}"))

    async def prepare(self) -> None:
        await self._move("prepare")

    async def accept(self) -> None:
        await self._move("accept")

    async def retire_old(self) -> None:
        await self._move("retire")

    async def accept_late(self) -> None:
        await self._move("late")

    async def undo(self) -> None:
        await self._move("undo")


class FakeStep(Fake, Step):
    pass


class FakeRemove(Fake, Remove):
    def begin(self) -> None:
        self.log.append((now(), f"begin {self.change.service}"))


class Bench:
    """Makes steps and transactions of them."""

    def __init__(self) -> None:
        self.log = Log()
        self.steps: dict[str, Step] = {}

    def add(
        self,
        name: str,
        takes: Mapping[str, float] | None = None,
        fails: Mapping[str, BaseException] | None = None,
        *,
        disruption: Literal[0, 1, 2] = 0,
        removes: bool = False,
    ) -> None:
        kind = FakeRemove if removes else FakeStep
        step = kind(Change(name, "remove" if removes else "roll"), cast("Any", None))
        step.log, step.takes, step.fails = self.log, takes or {"prepare": 1.0}, fails or {}
        step.disruption = disruption
        self.steps[name] = step

    def transaction(self, **needs: str) -> ApplyTransaction:
        """Of all steps; `web="api db"` needs both. As the supervisor, it lists what is needed
        first.
        """
        graph = {name: needs.get(name, "").split() for name in [*self.steps, *needs]}
        names = {other for of in graph.values() for other in of}
        return ApplyTransaction(self.steps, {**{n: [] for n in names - graph.keys()}, **graph})


@pytest.fixture
def bench(fakes: Fakes) -> Bench:
    return Bench()


@virtual_time
async def test_a_step_is_prepared_after_those_that_it_depends_on(bench: Bench) -> None:
    for name in ("db", "api", "web"):
        bench.add(name)
    await bench.transaction(web="api", api="db").prepare()
    assert [bench.log.at(f"prepare {name}") for name in ("db", "api", "web")] == [0.0, 1.0, 2.0]


@virtual_time
async def test_independent_steps_are_prepared_at_the_same_time(bench: Bench) -> None:
    for name in ("a", "b", "c"):
        bench.add(name)
    await bench.transaction().prepare()
    assert now() == 1.0
    assert bench.log.moves("prepare") == ["a", "b", "c"]


@virtual_time
async def test_what_is_not_changed_is_not_waited_for(bench: Bench) -> None:
    bench.add("web")
    await bench.transaction(web="db").prepare()
    assert bench.log.at("prepare web") == 0.0


@virtual_time
async def test_what_takes_something_away_comes_last(bench: Bench) -> None:
    bench.add("harsh", disruption=1)
    bench.add("slow", {"prepare": 5.0})
    bench.add("quick")
    await bench.transaction().prepare()
    assert bench.log.at("prepare harsh") == 5.0
    assert bench.log.moves("prepare") == ["slow", "quick", "harsh"]


@virtual_time
async def test_what_is_interrupted_comes_after_all_else(bench: Bench) -> None:
    bench.add("redis", disruption=2)
    bench.add("batches", {"prepare": 4.0}, disruption=1)
    bench.add("slow", {"prepare": 5.0})
    await bench.transaction().prepare()
    assert bench.log.moves("prepare") == ["slow", "batches", "redis"]
    assert bench.log.at("prepare redis") == 9.0


@virtual_time
async def test_what_was_interrupted_in_vain_is_named(bench: Bench) -> None:
    bench.add("redis", disruption=2)
    bench.add("web", fails={"accept": StartError("no room")})
    bench.steps["redis"].interrupted = cast("Any", object())
    with pytest.raises(ApplyError, match=r"web: no room \(interrupted and restarted: redis\)"):
        await bench.transaction().prepare()


@virtual_time
async def test_what_depends_on_a_disruptive_step_is_not_waited_for_by_it(bench: Bench) -> None:
    """Else the two would wait for each other for ever."""
    bench.add("job", disruption=1)
    bench.add("web")
    bench.add("other", {"prepare": 3.0})
    await bench.transaction(web="job").prepare()
    assert bench.log.at("prepare job") == 3.0
    assert bench.log.at("prepare web") == 4.0


@virtual_time
async def test_all_are_prepared_before_any_accepts(bench: Bench) -> None:
    bench.add("a", {"prepare": 1.0})
    bench.add("b", {"prepare": 2.0})
    await bench.transaction().prepare()
    assert bench.log.order == [
        "prepare a", "prepare b", "over: prepare a", "over: prepare b",
        "accept a", "accept b", "over: accept a", "over: accept b",
    ]  # fmt: skip


@virtual_time
async def test_a_failure_undoes_what_was_begun_in_the_opposite_order(bench: Bench) -> None:
    for name in ("db", "api"):
        bench.add(name)
    bench.add("web", fails={"prepare": StartError("no room")})
    bench.add("last")
    with pytest.raises(ApplyError, match=r"^web: no room$"):
        await bench.transaction(last="web", web="api", api="db").prepare()
    assert bench.log.moves("undo") == ["web", "api", "db"]
    assert "prepare last" not in bench.log.order
    assert not bench.log.moves("accept")


@virtual_time
async def test_a_failure_to_accept_undoes_everything(bench: Bench) -> None:
    bench.add("a")
    bench.add("b", fails={"accept": OSError(24, "Too many open files")})
    with pytest.raises(ApplyError, match="Too many open files") as raised:
        await bench.transaction().prepare()
    assert raised.value.service == "b"
    assert bench.log.moves("undo") == ["b", "a"]
    assert not bench.log.moves("retire")


@virtual_time
async def test_the_first_error_is_told_and_the_others_are_cancelled(bench: Bench) -> None:
    bench.add("slow", {"prepare": 9.0}, {"prepare": StartError("later")})
    bench.add("quick", {"prepare": 2.0}, {"prepare": StartError("first")})
    with pytest.raises(ApplyError, match="quick: first"):
        await bench.transaction().prepare()
    assert now() == 2.0
    assert "cancelled slow" in bench.log.order
    assert bench.log.moves("undo") == ["quick", "slow"]


@virtual_time
async def test_undo_waits_until_what_was_cancelled_is_over(bench: Bench, fakes: Fakes) -> None:
    bench.add("slow", {"prepare": 9.0})
    bench.add("quick", {"prepare": 1.0}, {"prepare": StartError("no")})
    with pytest.raises(ApplyError):
        await bench.transaction().prepare()
    order = bench.log.order
    assert order.index("cancelled slow") < order.index("undo quick")
    (undone,) = fakes.logged(Event.RELOAD_UNDONE)
    assert undone["services"] == ["slow", "quick"]


@pytest.mark.parametrize(
    ("error", "cause", "last_lines"),
    [
        (FAILED, "worker 0: broke", ("Traceback", "oops")),
        (FailedStartError("did not start"), "did not start", ()),
        (StartError("cannot listen on :80"), "cannot listen on :80", ()),
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device", ()),
        (KeyError("lost"), "internal error: KeyError('lost')", ()),
    ],
)
def test_an_error_names_its_service_and_its_cause(
    bench: Bench, fakes: Fakes, error: Exception, cause: str, last_lines: tuple[str, ...]
) -> None:
    fakes.allows_faults = True
    bench.add("web", fails={"prepare": error})

    @virtual_time
    async def test() -> None:
        with pytest.raises(ApplyError) as raised:
            await bench.transaction().prepare()
        found = raised.value
        assert (found.service, found.cause, found.last_lines) == ("web", cause, last_lines)
        assert str(found) == f"web: {cause}"

    test()
    assert len(fakes.logged(Event.INTERNAL_ERROR)) == isinstance(error, KeyError)


@virtual_time
async def test_an_undo_that_fails_keeps_no_other_from_being_undone(
    bench: Bench, fakes: Fakes
) -> None:
    fakes.allows_faults = True
    bench.add("a")
    bench.add("b", fails={"undo": RuntimeError("worse")})
    bench.add("c", {"prepare": 2.0}, {"prepare": StartError("no")})
    with pytest.raises(ApplyError, match="c: no"):
        await bench.transaction().prepare()
    assert bench.log.moves("undo") == ["c", "b", "a"]
    (failed,) = fakes.logged(Event.UNDO_FAILED)
    assert failed["service"] == "b"


@virtual_time
async def test_cancelling_undoes_everything_to_the_end(bench: Bench) -> None:
    bench.add("a", {"prepare": 5.0, "undo": 3.0})
    bench.add("b", {"prepare": 1.0, "undo": 3.0})
    preparing = asyncio.ensure_future(bench.transaction().prepare())
    await asyncio.sleep(2.0)
    preparing.cancel()
    await asyncio.sleep(1.0)
    preparing.cancel()  # even when it is asked twice
    with pytest.raises(asyncio.CancelledError):
        await preparing
    assert bench.log.order[-4:] == ["undo b", "over: undo b", "undo a", "over: undo a"]
    assert now() == 8.0


@virtual_time
async def test_a_commit_makes_its_moves_for_all_steps_together(bench: Bench) -> None:
    bench.add("a", {"retire": 2.0})
    bench.add("b", {"retire": 1.0})
    await bench.transaction().commit()
    assert bench.log.order == [
        "retire a", "retire b", "over: retire b", "over: retire a",
        "late a", "late b", "over: late a", "over: late b",
    ]  # fmt: skip


@virtual_time
async def test_removals_follow_the_others_and_begin_in_their_order(bench: Bench) -> None:
    bench.add("gone2", removes=True)
    bench.add("gone1", removes=True)
    bench.add("web", {"retire": 2.0})
    await bench.transaction().commit()
    moves = [what for what in bench.log.order if not what.startswith("over")]
    assert moves == [
        "retire web", "begin gone2", "begin gone1", "retire gone2", "retire gone1", "late web",
    ]  # fmt: skip
    assert bench.log.at("begin gone2") == 2.0


@pytest.mark.parametrize("move", ["retire", "late"])
def test_a_commit_goes_on_after_a_move_that_failed(bench: Bench, fakes: Fakes, move: str) -> None:
    fakes.allows_faults = True
    bench.add("a", fails={move: RuntimeError("a fault")})
    bench.add("b")
    bench.add("gone", removes=True)

    @virtual_time
    async def test() -> None:
        await bench.transaction().commit()

    test()
    assert {"over: retire b", "over: retire gone", "over: late b"} <= set(bench.log.order)
    assert len(fakes.logged(Event.INTERNAL_ERROR)) == 1


@virtual_time
async def test_what_is_done_to_the_end_is_done_even_when_its_caller_is_cancelled() -> None:
    done: list[str] = []

    async def work() -> str:
        await asyncio.sleep(5.0)
        done.append("whole")
        return "result"

    caller = asyncio.ensure_future(to_the_end(work()))
    await asyncio.sleep(1.0)
    for _ in range(3):
        caller.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert done == ["whole"]
    assert now() == 5.0


@virtual_time
async def test_what_is_done_to_the_end_gives_its_result_or_its_error() -> None:
    async def answer(what: Callable[[], str]) -> str:
        await asyncio.sleep(1.0)
        return what()

    assert await to_the_end(answer(lambda: "result")) == "result"
    with pytest.raises(ZeroDivisionError):
        await to_the_end(answer(lambda: str(1 // 0)))
