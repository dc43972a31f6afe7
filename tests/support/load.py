"""A load of requests on a daemon under test, while something is done to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from support.harness import ServdProcess
from support.strict_client import StrictClient, Tally


def client_of(daemon: ServdProcess, service: str = "web", **options: Any) -> StrictClient:
    """A client of the service's first address; `options` are those of `StrictClient`."""
    host, _, port = daemon.url(service).rpartition("//")[2].rpartition(":")
    return StrictClient(host, int(port), **options)


def under_load(client: StrictClient, *acts: Callable[[], object]) -> Tally:
    """The tally of a load during which `acts` were done one after the other."""

    async def work() -> None:
        for act in acts:
            await asyncio.to_thread(act)

    return asyncio.run(client.during(work))
