"""Workers that can import what the plan could not lead to reloads, more and more seldom."""

from __future__ import annotations

import asyncio

from servd.daemon.reload.replanning import Replanning
from servd.daemon.reload.request import ReloadRequest

from support.virtual_time import now, virtual_time


@virtual_time
async def test_code_that_only_workers_can_import_leads_to_ever_fewer_reloads() -> None:
    asked: list[tuple[float, str]] = []

    def ask(request: ReloadRequest) -> None:
        assert request.is_retry
        asked.append((now() - began, request.why))

    replanning = Replanning(ask)
    began = now()
    for second in range(300):
        replanning.ask("gw")
        if second == 100:
            replanning.ask("another")
        await asyncio.sleep(1)
    of_gw = [at for at, why in asked if "of gw " in why]
    assert of_gw == [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]
    assert [at for at, why in asked if "of another " in why] == [100]

    await asyncio.sleep(200)
    asked.clear()
    for _ in range(5):
        replanning.ask("gw")
        await asyncio.sleep(0.5)
    assert [at for at, _ in asked] == [500, 501]
