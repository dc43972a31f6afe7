"""Between the start of a daemon and its end."""

from __future__ import annotations

from servd.daemon.lifecycle import Lifecycle


def test_it_starts_then_runs_then_stops() -> None:
    lifecycle = Lifecycle()
    phases: list[str] = [lifecycle.phase]
    lifecycle.has_started = True
    phases.append(lifecycle.phase)
    lifecycle.stop()
    phases.append(lifecycle.phase)
    assert lifecycle.is_told_to_stop
    lifecycle.stop()
    phases.append(lifecycle.phase)
    assert phases == ["starting", "running", "stopping", "stopping"]


def test_one_that_stops_while_it_starts_never_runs() -> None:
    lifecycle = Lifecycle()
    lifecycle.stop()
    lifecycle.has_started = True
    assert lifecycle.phase == "stopping"


def test_a_replaced_daemon_stops_without_having_been_told_to() -> None:
    lifecycle = Lifecycle()
    lifecycle.has_started = True
    lifecycle.stopping.set()
    assert lifecycle.phase == "stopping"
    assert not lifecycle.is_told_to_stop
