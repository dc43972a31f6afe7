"""Fixtures of all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.harness import Servd, servd_for


@pytest.fixture
def servd(tmp_path: Path) -> Iterator[Servd]:
    """Starts daemons in a folder of their own; whatever is left of them ends with the test."""
    yield from servd_for(tmp_path)
