"""What the tests of the supervisor share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from servd.core.events import Event

from support.fake_worker import Fakes, fakes_for


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fakes]:
    """Workers that are no processes. A test during which servd has a fault fails."""
    with tempfile.TemporaryDirectory(prefix="sv") as folder, capture_logs() as events:
        found = fakes_for(folder, monkeypatch, events)
        yield found
        monkeypatch.undo()
        for pool in found.pools:
            pool.close()
        faults = [*found.logged(Event.INTERNAL_ERROR), *found.logged(Event.UNDO_FAILED)]
        assert found.allows_faults or not faults, faults
