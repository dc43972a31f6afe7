from __future__ import annotations
import asyncio
from support.fake_worker import Fakes, Fleet, Script
from support.virtual_time import now, virtual_time

WEB = """
[services.web]
app = "main:app"
listen = "127.0.0.1:0"
workers = 2
"""

@virtual_time
async def test_first(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    assert await fleet.start(WEB) == {}
    assert now() == 1.0
    assert fleet["web"].state == "ready"
    await asyncio.gather(*await fleet.apply(WEB + 'env = { A = "1" }\n'))
    print(fakes.notes, now(), fakes.states("web"))
    assert await fleet.supervisor.stop(30)
    print(fakes.notes, now(), fakes.states("web"))
