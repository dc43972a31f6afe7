"""What a worker leaves behind, where no signal ends it."""

from __future__ import annotations

import signal
from types import SimpleNamespace
from typing import Any, cast

from servd.supervisor.circus.process import WorkerProcess
from servd.wire.graces import IMMORTAL_SECONDS


class Immortal:
    """A process that the daemon may not signal: it is there at every look."""

    def __init__(self) -> None:
        self.signals: list[int] = []

    def look(self, known: object) -> dict[int, str]:
        return {7: "immortal"}

    def signal(self, number: int) -> None:
        self.signals.append(number)


def test_what_survives_sigkill_holds_no_worker_up_for_ever() -> None:
    now = 100.0
    remains = Immortal()
    process: Any = object.__new__(WorkerProcess)
    process._remains = remains
    process._killed_at = None
    process._loop = SimpleNamespace(time=lambda: now)
    process.launch = SimpleNamespace(context=SimpleNamespace(registry=SimpleNamespace(knows=None)))
    leaves = cast("Any", WorkerProcess._leaves_something_behind)
    now += 1000.0
    assert leaves(process)
    process._killed_at = now
    assert leaves(process)
    now += IMMORTAL_SECONDS
    assert leaves(process)
    now += 0.1
    assert not leaves(process)
    assert set(remains.signals) == {signal.SIGKILL}
