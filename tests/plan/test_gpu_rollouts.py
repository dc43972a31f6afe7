"""How services on GPUs are replaced, and what changes of the plan roll them."""

from __future__ import annotations

from typing import Any

import pytest

from servd.plan.diff import diff
from servd.plan.gpu_inventory import GIB
from servd.plan.gpus import GpuInventory, with_gpus
from servd.plan.render_changes import change_rows

from support.gpu_plans import NO_PLAN, equal, gpu, machine, one, part, plan

ROLLS: list[tuple[dict[str, object], str, int | str, str]] = [
    ({"gpus": {"memory": "70GiB"}}, "recreate", "100%", "70.5 GiB more are needed, 9.1 are free"),
    ({"gpus": {"memory": "30GiB"}}, "surge", "100%", ""),
    (part(0.5, "19GiB", workers=2), "surge", "100%", ""),
    (part(0.5, "20GiB", workers=2), "surge", 1, ""),
    (part(0.2, "15GiB", workers=4), "surge", 1, ""),
    (part(0.2, "15GiB", workers=3), "surge", 2, ""),
    (part(0.25, "19GiB", workers=4), "recreate", "100%", "19.5 GiB more are needed, 1.6 are free"),
    ({"gpus": 1}, "surge", "100%", ""),
    ({"gpus": 0.5, "workers": 2}, "surge", "100%", ""),
    ({"gpus": [0]}, "surge", "100%", ""),
    ({"gpus": {"memory": "70GiB"}, "rollout": {"strategy": "surge"}}, "surge", "100%", ""),
    ({"gpus": {"memory": "70GiB"}, "rollout": {"max_surge": 1}}, "recreate", 1,
     "70.5 GiB more are needed, 9.1 are free"),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "strategy", "surge", "reason"), ROLLS)
def test_the_strategy_follows_from_the_memory(
    keys: dict[str, object], strategy: str, surge: int | str, reason: str
) -> None:
    found = one(equal(1), **keys)
    chosen = (found.rollout.strategy, found.rollout.max_surge, found.rollout_reason)
    assert chosen == (strategy, surge, reason)


def test_unknown_memory_changes_no_strategy() -> None:
    found = one(GpuInventory(("0",)), gpus={"memory": "70GiB"})
    assert found.rollout.strategy == "surge"


def test_what_was_measured_counts_where_less_is_declared() -> None:
    assert one(equal(1), {"a": 60 * GIB}, gpus=1).rollout.strategy == "recreate"
    small = one(equal(1), {"a": 2 * GIB}, gpus=0.5, workers=2)
    assert small.rollout.strategy == "surge", "a share is more than what it takes"
    less = one(equal(1), {"a": 60 * GIB}, gpus={"memory": "20GiB"})
    assert less.rollout_reason == "60 GiB more are needed, 19.6 are free"


def test_the_plan_names_the_strategy() -> None:
    keys = {"gpus": {"memory": "70GiB"}, "env": {"A": "1"}}
    before = with_gpus(plan(llm=keys), equal(1), NO_PLAN)
    after = with_gpus(plan(llm={**keys, "env": {"A": "2"}}), equal(1), before)
    (row,) = change_rows(diff(before, after))
    assert row["why"] == "(recreate: 70.5 GiB more are needed, 9.1 are free)"
    assert row["notes"] == ["recreate: old workers stop before new ones start; connections wait"]


def test_another_figure_for_the_memory_rolls_nobody() -> None:
    before = with_gpus(plan(ocr=part(0.25, "9GiB")), equal(2), NO_PLAN)
    after = with_gpus(plan(ocr=part(0.25, "11GiB")), equal(2), before)
    (change,) = diff(before, after)
    assert (change.kind, [k.key for k in change.keys]) == ("live", ["gpus.memory"])


def test_another_figure_that_needs_another_gpu_is_a_roll() -> None:
    there = machine(gpu(0, 24 * GIB), gpu(1))
    before = with_gpus(plan(ocr=part(0.25, "9GiB")), there, NO_PLAN)
    assert before.service("ocr").gpus == (("GPU-0",),)
    after = with_gpus(plan(ocr=part(0.25, "30GiB")), there, before)
    (change,) = diff(before, after)
    assert (change.kind, [k.key for k in change.keys]) == ("roll", ["gpus.memory", "gpus"])


def test_what_others_need_changes_a_strategy_and_rolls_nobody() -> None:
    wanted = {"llm": part(0.5, "35GiB"), "ocr": part(0.25, "9GiB")}
    before = with_gpus(plan(llm=wanted["llm"]), equal(1), NO_PLAN)
    after = with_gpus(plan(**wanted), equal(1), before)
    kinds = {c.service: (c.kind, [k.key for k in c.keys]) for c in diff(before, after)}
    assert kinds["llm"] == ("live", ["rollout.strategy"])
    assert kinds["ocr"][0] == "add"


def rollouts(**services: Any) -> dict[str, tuple[str, bool]]:
    found = with_gpus(plan(**services), equal(1), NO_PLAN)
    return {each.name: (each.rollout.strategy, each.fits_twice) for each in found.services}


def test_services_that_change_together_find_the_room_once() -> None:
    """Both next to their old workers would need 102 GiB of 79.6."""
    half = part(0.5, "25GiB")
    assert rollouts(a=half) == {"a": ("surge", True)}
    assert rollouts(a=half, b=half) == {"a": ("surge", True), "b": ("recreate", False)}
    small = part(0.5, "19GiB")
    assert rollouts(a=small, b=small) == {"a": ("surge", True), "b": ("surge", True)}


def test_what_changes_one_by_one_does_not_fit_twice() -> None:
    """A reload starts one new worker at a time; an upgrade of the daemon starts all."""
    assert rollouts(a=part(0.5, "20GiB", workers=2)) == {"a": ("surge", False)}
    explicit = {"gpus": {"memory": "70GiB"}, "rollout": {"strategy": "surge"}}
    assert rollouts(a=explicit) == {"a": ("surge", False)}
