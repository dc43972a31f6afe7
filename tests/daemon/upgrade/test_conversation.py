"""What a daemon and the next one say to each other, over a real channel within one process."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading

import pytest

from servd._version import __version__
from servd.core.errors import ServdError
from servd.daemon.upgrade import old_daemon
from servd.daemon.upgrade.new_daemon import Ready, UpgradeError
from servd.wire.names import HANDOVER

from support.in_loop import in_loop, settle
from support.two_daemons import new_daemon, said, two_daemons, upgrade_state

# the new daemon, as the old one hears it


@in_loop
async def test_the_new_daemon_says_what_it_has_when_it_is_ready() -> None:
    async with two_daemons() as both:
        both.listen()
        agreeing = asyncio.ensure_future(both.old.agree(["web"], ["a", "b"], ["b"]))
        ready = await both.new.ready(5)
        assert ready == Ready(__version__, ["a", "b"], ["b"], ["web"])
        await settle()
        assert not agreeing.done()
        both.new.tell(yours=True)
        await agreeing
        both.old.confirm()
        await both.new.confirms()


@in_loop
async def test_it_says_itself_how_long_it_takes() -> None:
    async with two_daemons() as both:
        waiting = asyncio.ensure_future(both.new.ready(0.02))
        both.old.expect(5.0)
        await asyncio.sleep(0.04)
        assert not waiting.done()
        both.old.expect(0.01)
        with pytest.raises(UpgradeError, match="not ready within 0 s"):
            await waiting


@in_loop
async def test_a_failure_is_told_with_the_last_lines() -> None:
    async with two_daemons() as both:
        both.old.failed("web: it exited with status 1", ("oh", "no"))
        with pytest.raises(UpgradeError, match="exited with status 1") as failure:
            await both.new.ready(5)
        assert failure.value.last_lines == ("oh", "no")


@in_loop
async def test_what_it_says_in_addition_is_passed_over() -> None:
    async with new_daemon() as (new, _, theirs):
        more = b'"version": "2", "taken": [], "admin": [], "at_once": [], "new": 1'
        theirs.sendall(b'{"hello": 1}\n{"ready": {' + more + b"}}\n")
        assert await new.ready(5) == Ready("2", [], [], [])


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"7",
        b"[]",
        b"null",
        b'"within"',
        b'{"within": "soon"}',
        b'{"ready": {"version": "2"}}',
        b'{"ready": 7}',
        b'{"failed": "x", "last_lines": 7}',
        b"\xff\xfe",
        b"[" * 5000,
    ],
)
@in_loop
async def test_garbage_before_it_is_ready_fails_the_upgrade(line: bytes) -> None:
    async with new_daemon() as (new, _, theirs):
        theirs.sendall(line + b"\n")
        with pytest.raises(UpgradeError, match="invalid message from"):
            await new.ready(5)


@pytest.mark.parametrize("line", [b"{", b"7", b"null", b'["mine"]', b'"mine"', b"[" * 5000])
@in_loop
async def test_garbage_instead_of_a_confirmation_fails_the_upgrade(line: bytes) -> None:
    async with new_daemon() as (new, _, theirs):
        theirs.sendall(b'{"ready": 1}\n' + line + b"\n")
        with pytest.raises(UpgradeError, match="invalid message from"):
            await new.confirms()


@pytest.mark.parametrize(
    ("status", "how"),
    [
        (3, "the new servd exited with status 3"),
        (-signal.SIGKILL, "the new servd was killed by signal 9"),
    ],
)
@in_loop
async def test_an_end_before_it_is_ready_is_told_by_its_status(status: int, how: str) -> None:
    async with new_daemon() as (new, process, theirs):
        process.status = status
        theirs.close()
        with pytest.raises(UpgradeError, match=how):
            await new.ready(5)
        with pytest.raises(UpgradeError, match=how):
            await new.confirms()


@in_loop
async def test_a_channel_that_closes_while_it_runs_counts_as_not_ready() -> None:
    async with new_daemon() as (new, _, theirs):
        theirs.close()
        with pytest.raises(UpgradeError, match="not ready within"):
            await new.ready(0.03)


@in_loop
async def test_a_replaced_daemon_hurries_when_the_new_one_asks_for_it() -> None:
    async with two_daemons() as both:
        forced: list[str] = []
        heeding = asyncio.ensure_future(both.new.heed(lambda: forced.append("forced")))
        both.old.expect(5)
        await settle()
        assert forced == []
        both.old.force_stop()
        await settle()
        assert forced == ["forced"]
        both.process.status = 0
        both.old._channel.close()
        await heeding


@pytest.mark.parametrize("line", [b"{", b"7", b"null"])
@in_loop
async def test_garbage_ends_the_heeding_without_an_error(line: bytes) -> None:
    async with new_daemon() as (new, _, theirs):
        theirs.sendall(line + b"\n")
        await new.heed(lambda: pytest.fail("nobody asked for it"))


@in_loop
async def test_a_dismissed_daemon_is_told_to_stop_and_waited_for() -> None:
    async with new_daemon() as (new, process, theirs):
        await new.dismiss()
        assert said(theirs) == [{"stops": True}]
        assert process.signals == [signal.SIGTERM]


@in_loop
async def test_one_that_does_not_stop_when_dismissed_is_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("servd.daemon.upgrade.new_daemon.DISMISSED_DAEMON_SECONDS", 0.01)
    async with new_daemon() as (new, process, _):
        process.heeds_signals = False
        await new.dismiss()
        assert process.signals == [signal.SIGTERM, signal.SIGKILL]


@in_loop
async def test_nothing_is_raised_by_telling_one_that_has_ended() -> None:
    async with new_daemon() as (new, _, theirs):
        theirs.close()
        for _ in range(3):
            new.tell(released=["web"])
            await settle()


# the old daemon, as the new one hears it


@in_loop
async def test_the_old_daemon_may_stop_instead_of_handing_over() -> None:
    async with two_daemons() as both:
        both.listen()
        agreeing = asyncio.ensure_future(both.old.agree([], [], []))
        await both.new.ready(5)
        both.new.tell(stops=True)
        with pytest.raises(ServdError, match="is stopping"):
            await agreeing


@in_loop
async def test_one_that_began_to_stop_before_does_not_hand_over() -> None:
    async with two_daemons() as both:
        both.listen()
        both.new.tell(stops=True)
        await settle()
        with pytest.raises(ServdError, match="is stopping"):
            await both.old.agree([], [], [])


@pytest.mark.parametrize("when", ["before", "meanwhile"])
@in_loop
async def test_an_old_daemon_that_dies_has_handed_over(when: str) -> None:
    async with two_daemons() as both:
        both.listen()
        if when == "before":
            both.new._writer.close()
            await both.old.gone.wait()
        agreeing = asyncio.ensure_future(both.old.agree([], [], []))
        await settle()
        both.new._writer.close()
        await agreeing
        await both.old.gone.wait()


@in_loop
async def test_one_that_ends_after_it_said_that_it_stops_has_not_handed_over() -> None:
    async with two_daemons() as both:
        both.listen()
        both.new.tell(stops=True)
        await settle()
        both.new._writer.close()
        await both.old.gone.wait()
        with pytest.raises(ServdError, match="is stopping"):
            await both.old.agree([], [], [])


@in_loop
async def test_services_are_waited_for_until_the_old_daemon_has_released_or_ended_them() -> None:
    async with two_daemons() as both:
        both.listen()
        waits = {
            name: asyncio.ensure_future(wait)
            for name, wait in {
                "web released": both.old.released("web"),
                "web ended": both.old.ended("web"),
                "api released": both.old.released("api"),
                "api ended": both.old.ended("api"),
            }.items()
        }

        async def done() -> set[str]:
            await settle()
            return {name for name, wait in waits.items() if wait.done()}

        assert await done() == set()
        both.new.tell(released=["web"])
        assert await done() == {"web released"}
        both.new.tell(ended=["api"])  # what has ended accepts no more either
        assert await done() == {"web released", "api released", "api ended"}
        both.new._writer.close()
        assert await done() == set(waits)
        await both.old.ended("anything")


@in_loop
async def test_more_names_than_a_line_usually_has_are_understood() -> None:
    async with two_daemons() as both:
        both.listen()
        names = [f"a-service-with-a-long-name-{number}" for number in range(5000)]
        both.new.tell(released=names)
        await both.old.released(names[-1])
        assert not both.old.gone.is_set()


@in_loop
async def test_a_reload_that_it_was_asked_for_is_left_to_the_new_daemon() -> None:
    async with two_daemons() as both:
        both.listen()
        both.new.tell(reload=True)
        await settle()
        assert both.reloads == ["reload"]


@pytest.mark.parametrize("line", [b"{", b"7", b"null", b'{"ended": 7}', b"\xff", b"[" * 5000])
@in_loop
async def test_garbage_from_the_old_daemon_counts_as_its_end(line: bytes) -> None:
    async with two_daemons() as both:
        both.listen()
        both.new._writer.write(line + b"\n")
        await both.old.gone.wait()
        assert both.old._listening is not None
        await both.old._listening
        both.old.force_stop()
        both.old.failed("too late")


# the beginning


def test_a_process_that_nobody_started_to_take_over_has_no_old_daemon() -> None:
    assert old_daemon.take({}) is None
    assert old_daemon.take({HANDOVER: "x"}) is None


def test_what_is_handed_over_is_read_whole_and_its_descriptors_are_kept_private() -> None:
    ours, theirs = socket.socketpair()
    lock = os.dup(ours.fileno())
    os.set_inheritable(lock, True)
    state = upgrade_state(lock=lock, sockets=[], admin=[], inherited={}, digest="x" * 300_000)
    environ = {HANDOVER: str(theirs.detach()), "OTHER": "1"}
    sender = threading.Thread(target=ours.sendall, args=(state.to_json() + b"\n",))
    sender.start()
    previous = old_daemon.take(environ)
    sender.join()
    assert previous is not None
    assert previous.state == state
    assert environ == {"OTHER": "1"}
    assert not os.get_inheritable(lock)
    previous._channel.close()
    ours.close()
    os.close(lock)


@pytest.mark.parametrize(
    ("text", "reason"), [(b"", "exited"), (b"{}\n", "cannot read the state"), (b"{", "exited")]
)
def test_a_hand_over_that_is_not_whole_is_a_start_that_fails(text: bytes, reason: str) -> None:
    ours, theirs = socket.socketpair()
    ours.sendall(text)
    ours.close()
    with pytest.raises(ServdError, match=reason):
        old_daemon.take({HANDOVER: str(theirs.detach())})
