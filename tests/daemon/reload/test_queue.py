"""Requests for reloads: which are served together, in which order, and what ends them."""

from __future__ import annotations

import asyncio

import pytest

from servd.daemon.reload.queue import ReloadQueue
from servd.daemon.reload.request import ReloadReport, ReloadRequest
from servd.plan.overrides import ScaleService, StopService

from support.in_loop import in_loop, settle

FILE = ReloadRequest("a file changed")
HANGUP = ReloadRequest("SIGHUP")
CERTIFICATE = ReloadRequest("a certificate changed", read=False, certificates=True)
SCALE = ReloadRequest("scale", read=False, act=ScaleService("web", 3))
STOP = ReloadRequest("stop", read=False, act=StopService("web"))
ROLL = ReloadRequest("restart", read=False, roll=frozenset({"web"}))
SEEN = ReloadRequest("edit", seen=frozenset({"boot-1"}))


def queue(stopping: asyncio.Event | None = None) -> ReloadQueue:
    return ReloadQueue(stopping or asyncio.Event(), lambda: "now")


async def served(requests: ReloadQueue) -> list[ReloadRequest]:
    """What a reloader would get, one after the other."""
    found = []
    while not requests.is_empty:
        found.append((await requests.take())[0])
    return found


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        pytest.param([FILE, HANGUP], ["a file changed, SIGHUP"], id="two readings"),
        pytest.param([FILE, FILE, FILE], ["a file changed"], id="the same reason"),
        pytest.param(
            [FILE, HANGUP, FILE], ["a file changed, SIGHUP"], id="a reason that is named already"
        ),
        pytest.param([CERTIFICATE, CERTIFICATE], ["a certificate changed"], id="certificates"),
        pytest.param(
            [FILE, CERTIFICATE, HANGUP],
            ["a file changed", "a certificate changed", "SIGHUP"],
            id="no reading fails for a certificate",
        ),
        pytest.param([SCALE, STOP, SCALE], ["scale", "stop", "scale"], id="manual actions"),
        pytest.param([FILE, SCALE, HANGUP], ["a file changed", "scale", "SIGHUP"], id="turns"),
        pytest.param([ROLL, FILE], ["restart", "a file changed"], id="a roll reads nothing"),
        pytest.param([ROLL, ROLL], ["restart"], id="rolls"),
        pytest.param([SEEN, SEEN, FILE], ["edit", "edit", "a file changed"], id="seen: never"),
        pytest.param([FILE, SEEN], ["a file changed", "edit"], id="nor behind another"),
    ],
)
@in_loop
async def test_requests_that_one_reload_can_answer_are_served_together(
    asked: list[ReloadRequest], expected: list[str]
) -> None:
    requests = queue()
    futures = [requests.ask(request) for request in asked]
    assert [request.why for request in await served(requests)] == expected
    assert len(set(map(id, futures))) == len(expected)


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        ("max.py changed", "x.py changed", "max.py changed, x.py changed"),
        ("a.py, b.py changed", "a.py, b.py changed", "a.py, b.py changed"),
        ("SIGHUP, a.py, b.py changed", "a.py, b.py changed", "SIGHUP, a.py, b.py changed"),
    ],
)
def test_a_reason_is_left_out_only_where_it_is_named_whole(
    first: str, second: str, why: str
) -> None:
    assert ReloadRequest(first).joined(ReloadRequest(second)).why == why


def test_joined_requests_replace_what_either_wants_replaced() -> None:
    one = ReloadRequest("a.py changed", roll=frozenset({"a"}))
    other = ReloadRequest("b.py changed", roll=frozenset({"b"}), roll_all=True)
    assert one.joined(other) == ReloadRequest(
        "a.py changed, b.py changed", roll=frozenset({"a", "b"}), roll_all=True
    )


@in_loop
async def test_all_whose_requests_are_joined_get_the_one_report() -> None:
    requests = queue()
    first, second = requests.ask(FILE), requests.ask(HANGUP)
    request, future = await requests.take()
    report = ReloadReport("applied", "now", request.why)
    future.set_result(report)
    assert await first is report
    assert await second is report


@in_loop
async def test_a_request_that_comes_while_one_is_served_does_not_join_it() -> None:
    requests = queue()
    requests.ask(FILE)
    _, under_way = await requests.take()
    assert requests.is_empty
    assert requests.ask(FILE) is not under_way
    assert not requests.is_empty


@in_loop
async def test_taking_waits_for_the_next_request() -> None:
    requests = queue()
    taking = asyncio.ensure_future(requests.take())
    await settle()
    assert not taking.done()
    requests.ask(SCALE)
    assert (await taking)[0] is SCALE


@in_loop
async def test_what_is_asked_for_too_late_is_refused_at_once_and_not_queued() -> None:
    stopping = asyncio.Event()
    requests = queue(stopping)
    stopping.set()
    report = await requests.ask(FILE)
    assert (report.outcome, report.why, report.at) == ("rolled_back", "a file changed", "now")
    assert report.error == "servd is stopping"
    assert requests.is_empty
    requests.refusal = "servd was upgraded meanwhile: try again"
    assert (await requests.ask(SCALE)).error == "servd was upgraded meanwhile: try again"


@in_loop
async def test_closing_answers_whatever_waits() -> None:
    requests = queue()
    waiting = [requests.ask(request) for request in (FILE, SCALE, SEEN)]
    waiting[1].cancel()  # its caller is gone
    requests.close()
    assert requests.is_empty
    reports = [await waiting[0], await waiting[2]]
    assert [(report.why, report.error) for report in reports] == [
        ("a file changed", "servd is stopping"), ("edit", "servd is stopping"),
    ]  # fmt: skip


@in_loop
async def test_what_is_parked_is_overtaken_and_tried_again_with_what_joins_it() -> None:
    requests = queue()
    first = requests.ask(FILE)
    requests.park(*await requests.take())
    assert not requests.is_empty
    requests.ask(SCALE)
    assert (await requests.take())[0] == SCALE
    second = requests.ask(ReloadRequest("urgent", now=True))
    taken, future = await requests.take()
    assert (taken.why, taken.now) == ("a file changed, urgent", True)
    assert first is second is future


@in_loop
async def test_what_was_parked_goes_before_what_waits_and_all_is_answered_at_the_end() -> None:
    requests = queue()
    parked = requests.ask(FILE)
    requests.park(*await requests.take())
    requests.ask(SCALE)
    requests.unpark()
    assert (await requests.take())[0] == FILE
    requests.park(FILE, parked)
    requests.close()
    assert (await parked).error == "servd is stopping"
