"""The pytest fixture `servd`: daemons that stop at the end of their test.

::

    def test_the_app(servd):
        server = servd("main:app", port=0)
        assert httpx.get(server.url()).status_code == 200
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from servd.embed import Server


class Serve(Protocol):
    """`servd.serve` with `threaded=True`."""

    def __call__(self, config_or_target: str, **options: Any) -> Server:
        """Returns when every service is ready. Raises `servd.StartError`."""


@pytest.fixture
def servd() -> Iterator[Serve]:
    """Function that runs a configuration or a target in the background, as `servd.serve` does."""
    from servd.embed import serve

    with contextlib.ExitStack() as running:

        def started(config_or_target: str, **options: Any) -> Server:
            server = serve(config_or_target, threaded=True, **options)
            return running.enter_context(server)

        yield started
