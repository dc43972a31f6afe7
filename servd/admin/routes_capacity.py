"""The route that `servd plan --capacity` reads."""

from __future__ import annotations

from fastapi import APIRouter

from servd.admin.dependencies import CurrentDaemon
from servd.capacity.measured import Measurements, measurements
from servd.host.facts import read_quota, usable_cpus, usable_ids

router = APIRouter()


@router.get(
    "/v1/measurements",
    summary="What requests have needed",
    description="Service times, waits and CPU time of each service since the daemon started, for"
    " `servd plan --capacity`.",
)
async def show(daemon: CurrentDaemon) -> Measurements:
    counters = daemon.supervisor.context.workers.counters
    work = {name: counters.totals(name).work for name in counters.services}
    cpus = usable_cpus(usable_ids(), read_quota())
    return measurements(daemon.reloader.desired.plan, cpus, work)
