"""Fixtures of all tests."""

from __future__ import annotations

import compileall
import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from httpx._config import DEFAULT_TIMEOUT_CONFIG
from hypothesis import HealthCheck, settings

from support.harness import DEADLINE, Servd, servd_for

# A shell starts what it runs in the background with these ignored, and that is inherited: what the
# tests start would hear no Ctrl-C, and no script of theirs could set a trap for them.
for _number, _handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)

# How long an example takes says nothing on a machine that is busy with other things.
settings.register_profile("servd", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("servd")

# What every request has that names no other: it ends a wait that is hopeless, and bounds nothing.
for _phase in ("connect", "read", "write", "pool"):
    setattr(DEFAULT_TIMEOUT_CONFIG, _phase, DEADLINE)


def pytest_configure(config: pytest.Config) -> None:
    """Compiles servd once. Where PYTHONDONTWRITEBYTECODE is set, each of the thousands of daemons
    and workers that the tests start would compile it anew, which is a third of its start.
    """
    if not hasattr(config, "workerinput"):
        compileall.compile_dir(Path(__file__).parents[1] / "servd", quiet=2)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Three for two CPUs: the tests wait for other processes most of the time."""
    return math.ceil(1.5 * len(os.sched_getaffinity(0)))


@pytest.fixture
def servd(tmp_path: Path) -> Iterator[Servd]:
    """Starts daemons in a folder of their own; whatever is left of them ends with the test."""
    yield from servd_for(tmp_path)
