"""What a GPU in quarantine asks of a reload."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from servd.daemon.gpus.quarantine import GpuQuarantine
from servd.daemon.reload.request import ReloadReport, ReloadRequest
from servd.wire.gpus import Gpu, GpuFault, GpuSnapshot

from support.in_loop import in_loop, settle


class Daemon:
    """As much of a daemon as a quarantine knows, with the reloads that are asked of it."""

    def __init__(self, *gpus: Gpu) -> None:
        self.asked: list[ReloadRequest] = []
        self.reasons: dict[str, str] = {}
        self.plan = SimpleNamespace(services=())
        config = SimpleNamespace(daemon=SimpleNamespace(gpu_errors="quarantine"))
        desired = SimpleNamespace(loaded=SimpleNamespace(config=config), plan=self.plan)
        self.quarantine = GpuQuarantine(
            self.reasons,
            cast("Any", SimpleNamespace(snapshot=GpuSnapshot(gpus))),
            cast("Any", SimpleNamespace(services={})),
            lambda: cast("Any", desired),
            self.ask,
        )

    def ask(self, request: ReloadRequest) -> asyncio.Future[ReloadReport]:
        self.asked.append(request)
        answer: asyncio.Future[ReloadReport] = asyncio.get_running_loop().create_future()
        answer.set_result(ReloadReport("applied", "", request.why))
        return answer


@in_loop
async def test_workers_leave_a_failed_gpu_before_two_old_generations_have_drained() -> None:
    daemon = Daemon(Gpu("GPU-0", "0"), Gpu("GPU-1", "1"))
    daemon.quarantine.take(GpuFault("GPU-0", 79, "off the bus"))
    await settle()
    (request,) = daemon.asked
    assert (request.now, request.read) == (True, False)


@in_loop
async def test_an_instance_that_no_service_has_may_go() -> None:
    daemon = Daemon(Gpu("GPU-0", "0"))
    daemon.plan.services = (SimpleNamespace(gpus=(("MIG-1",),)),)
    daemon.quarantine.take(GpuFault("MIG-0", 0, "the driver does not list it any more"))
    assert daemon.reasons == {}
    daemon.quarantine.take(GpuFault("MIG-1", 0, "the driver does not list it any more"))
    daemon.quarantine.take(GpuFault("GPU-1", 0, "the driver does not list it any more"))
    assert set(daemon.reasons) == {"MIG-1", "GPU-1"}
    await settle()
