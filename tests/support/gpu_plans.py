"""Plans with GPUs as values."""

from __future__ import annotations

from typing import Any

from servd.plan.gpu_inventory import GIB
from servd.plan.gpus import GpuInventory, with_gpus
from servd.plan.model import Plan, ServicePlan
from servd.wire.gpus import Gpu

from support.plans import plan_of

NO_PLAN = Plan()
TOTAL = int(79.6 * GIB)


Dealt = dict[str, tuple[tuple[str, ...], ...]]
"""The GPUs of each worker, by service."""


def gpu(number: int, total: int = TOTAL, **fields: Any) -> Gpu:
    return Gpu(**{"id": f"GPU-{number}", "number": str(number), "total": total, **fields})


def instance(number: int, total: int = 40 * GIB) -> Gpu:
    return Gpu(f"MIG-{number}", total=total, parent="GPU-x")


def machine(*gpus: Gpu, **fields: Any) -> GpuInventory:
    return GpuInventory(tuple(each.id for each in gpus), known=gpus, **fields)


def equal(count: int, total: int = TOTAL) -> GpuInventory:
    return machine(*(gpu(number, total) for number in range(count)))


def plan(**services: Any) -> Plan:
    return plan_of({name: {"app": "main:app", **keys} for name, keys in services.items()})


def dealt(there: GpuInventory, before: Plan = NO_PLAN, /, **services: Any) -> Dealt:
    found = with_gpus(plan(**services), there, before)
    return {service.name: service.gpus for service in found.services}


def one(there: GpuInventory, peak: dict[str, int] | None = None, /, **keys: object) -> ServicePlan:
    return with_gpus(plan(a=keys), there, NO_PLAN, peak or {}).service("a")


def part(share: float, memory: str, **keys: object) -> dict[str, object]:
    return {"gpus": {"share": share, "memory": memory}, **keys}
