"""Who gets sound GPUs where they do not suffice for all."""

from __future__ import annotations

import dataclasses
from typing import Any

from servd.plan.gpus import GpuInventory, with_gpus
from servd.plan.model import Plan

from support.gpu_plans import NO_PLAN, Dealt, equal, plan


def without(there: GpuInventory, *bad: str) -> GpuInventory:
    return dataclasses.replace(there, quarantined=frozenset(bad))


def dealt_after(there: GpuInventory, before: Plan, **services: Any) -> Dealt:
    found = with_gpus(plan(**services), there, before)
    return {service.name: service.gpus for service in found.services}


def test_who_can_move_moves_although_another_cannot() -> None:
    """One sound GPU is left: too little for the two workers of `pinned`."""
    services: dict[str, Any] = {"pinned": {"gpus": 1, "workers": 2}, "share": {"gpus": 0.5}}
    before = with_gpus(plan(**services), equal(3), NO_PLAN)
    assert before.service("share").gpus == (("GPU-2",),)
    three = without(equal(3), "GPU-2")
    assert dealt_after(three, before, **services) == {
        "pinned": (("GPU-0",), ("GPU-1",)),
        "share": (("GPU-2",),),
    }, "all sound GPUs are in use"
    four = without(equal(4), "GPU-0", "GPU-1", "GPU-2")
    assert dealt_after(four, before, **services) == {
        "pinned": (("GPU-0",), ("GPU-1",)),
        "share": (("GPU-3",),),
    }


def test_who_has_a_sound_gpu_keeps_it() -> None:
    services: dict[str, Any] = {"a": {"gpus": 1}, "b": {"gpus": 1}}
    before = with_gpus(plan(**services), equal(2), NO_PLAN)
    found = dealt_after(without(equal(2), "GPU-0"), before, **services)
    assert found == {"a": (("GPU-0",),), "b": (("GPU-1",),)}


def test_a_new_service_gets_a_sound_gpu_before_one_in_quarantine() -> None:
    wanted: dict[str, Any] = {"a": {"gpus": 1}, "b": {"gpus": 1}}
    found = dealt_after(without(equal(2), "GPU-0"), NO_PLAN, **wanted)
    assert found == {"a": (("GPU-1",),), "b": (("GPU-0",),)}
