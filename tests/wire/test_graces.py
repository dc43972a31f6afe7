"""Each wait is longer than what it waits for."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from servd.plan.model import PROOF_SECONDS
from servd.supervisor.io.channel import ANSWER_SECONDS
from servd.wire import graces
from servd.wire.graces import (
    ABORT_SECONDS,
    DISMISSED_DAEMON_SECONDS,
    FORCED_STOP_SECONDS,
    HARD_EXIT_SECONDS,
    HOOK_SECONDS,
    IMMORTAL_SECONDS,
    KILL_SECONDS,
    MANAGER_SECONDS,
    OLDEST_DRAIN_SECONDS,
    ORPHAN_SECONDS,
    PREVIOUS_DAEMON_SECONDS,
    PROBE_END_SECONDS,
    STOP_SECONDS,
    UNREADY_STOP_SECONDS,
)
from servd.worker import drain, events, telemetry

SERVD = Path(graces.__file__).parents[1]

WORKER_END_SECONDS = (
    drain._DISCONNECT_SECONDS + drain._CANCEL_SECONDS + PROBE_END_SECONDS + events.CLOSE_SECONDS
)
"""What a worker may take beyond its drain, after which its app shuts down."""


@pytest.mark.parametrize(
    ("inner", "outer"),
    [
        pytest.param(WORKER_END_SECONDS, HARD_EXIT_SECONDS, id="the worker's end, its hard exit"),
        pytest.param(HARD_EXIT_SECONDS, KILL_SECONDS, id="the hard exit, the kill"),
        pytest.param(telemetry.FLUSH_SECONDS, HARD_EXIT_SECONDS, id="the last spans, the exit"),
        pytest.param(PROOF_SECONDS, UNREADY_STOP_SECONDS, id="the proof of a start, its stop"),
        pytest.param(ABORT_SECONDS, FORCED_STOP_SECONDS, id="a stack, a forced stop"),
        pytest.param(FORCED_STOP_SECONDS, PREVIOUS_DAEMON_SECONDS, id="a worker, its daemon"),
        pytest.param(FORCED_STOP_SECONDS, OLDEST_DRAIN_SECONDS, id="a forced stop, the patience"),
        pytest.param(UNREADY_STOP_SECONDS, DISMISSED_DAEMON_SECONDS, id="unready, dismissed"),
        pytest.param(KILL_SECONDS, STOP_SECONDS, id="the kill of a worker, the stop of all"),
        pytest.param(IMMORTAL_SECONDS, STOP_SECONDS, id="what no signal ends, the stop of all"),
        pytest.param(HOOK_SECONDS, MANAGER_SECONDS, id="the last hooks, the manager"),
        pytest.param(ABORT_SECONDS, ANSWER_SECONDS, id="a stack, an answer"),
    ],
)
def test_each_wait_is_longer_than_the_one_inside_it(inner: float, outer: float) -> None:
    assert 0 < inner < outer


def test_the_next_daemon_never_kills_workers_that_still_exit_by_themselves() -> None:
    """Its clock starts later than theirs: it is started after its predecessor has died."""
    assert ORPHAN_SECONDS >= HARD_EXIT_SECONDS


def test_every_grace_of_the_table_is_the_one_in_use() -> None:
    table = {name for name in vars(graces) if name.endswith("_SECONDS")}
    assert len(table) >= 13
    used: set[str] = set()
    for path in SERVD.rglob("*.py"):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)) if "servd.wire.graces" in text else ():
            if isinstance(node, ast.ImportFrom) and node.module == "servd.wire.graces":
                used |= {alias.name for alias in node.names}
    assert used == table
