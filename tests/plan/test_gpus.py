"""Which worker gets which GPU."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servd.config.model import Config
from servd.plan.build import build
from servd.plan.diff import diff
from servd.plan.gpus import GpuError, GpuInventory, with_gpus
from servd.plan.host import Host
from servd.plan.model import Plan

HOST = Host(cpus=(0,), usable_cpus=1)
NO_PLAN = Plan()


def plan(**services: dict[str, object]) -> Plan:
    made = {name: {"app": "main:app", **keys} for name, keys in services.items()}
    return build(Config.model_validate({"services": made}), HOST, "/run/x")


def ids(count: int) -> GpuInventory:
    return GpuInventory(tuple(str(each) for each in range(count)))


def dealt(
    count: int, before: Plan = NO_PLAN, **services: dict[str, object]
) -> dict[str, tuple[tuple[str, ...], ...]]:
    found = with_gpus(plan(**services), ids(count), before)
    return {service.name: service.gpus for service in found.services}


def test_whole_gpus_go_to_one_worker_each() -> None:
    assert dealt(4, a={"gpus": 1, "workers": 2}, b={"gpus": 2}) == {
        "a": (("2",), ("3",)),
        "b": (("0", "1"),),
    }


def test_shares_are_spread_and_then_shared() -> None:
    found = dealt(2, a={"gpus": 0.5, "workers": 4})["a"]
    assert sorted(found) == [("0",), ("0",), ("1",), ("1",)]
    assert found[0] != found[1]


def test_shares_are_packed_where_spreading_leaves_too_little() -> None:
    found = dealt(2, a={"gpus": 0.4, "workers": 3}, b={"gpus": 0.6})
    assert len([one for one in (*found["a"], *found["b"]) if one == ("0",)]) == 2


def test_named_gpus_are_nobody_elses() -> None:
    found = dealt(2, a={"gpus": [0], "workers": 2}, b={"gpus": 1})
    assert found == {"a": (("0",), ("0",)), "b": (("1",),)}


def test_workers_keep_the_gpus_that_they_had() -> None:
    small = plan(a={"gpus": 1}, b={"gpus": 1})
    before = with_gpus(small, ids(4), NO_PLAN)
    grown = dealt(4, before, a={"gpus": 1, "workers": 2}, b={"gpus": 1}, c={"gpus": 1})
    first = {service.name: service.gpus for service in before.services}
    assert grown["a"][0] == first["a"][0]
    assert grown["b"] == first["b"]


def test_more_workers_with_gpus_are_a_scale_and_nobody_else_changes() -> None:
    before = with_gpus(plan(a={"gpus": 1}, b={"gpus": 1}), ids(4), NO_PLAN)
    after = with_gpus(plan(a={"gpus": 1, "workers": 3}, b={"gpus": 1}), ids(4), before)
    assert [(c.service, c.kind) for c in diff(before, after)] == [("a", "scale")]


def test_other_gpus_are_a_roll() -> None:
    before = with_gpus(plan(a={"gpus": 1}), ids(4), NO_PLAN)
    after = with_gpus(plan(a={"gpus": 1}), GpuInventory(("7",)), before)
    (change,) = diff(before, after)
    assert (change.kind, [(k.key, k.before, k.after) for k in change.keys]) == (
        "roll",
        [("gpus", "0", "7")],
    )


TOO_MUCH = [
    (
        2,
        {"a": {"gpus": 1, "workers": 2}, "b": {"gpus": 0.5}},
        "2.5 GPUs requested (a 2 x 1 + b 0.5), but this machine has 2 GPUs",
    ),
    (0, {"a": {"gpus": 1}}, "1 GPU requested (a 1), but this machine has no GPUs"),
    (
        2,
        {"a": {"gpus": [1]}, "b": {"gpus": 2}},
        "2 GPUs requested (b 2), but this machine has 2 GPUs, and 1 of them is pinned",
    ),
    (2, {"a": {"gpus": [5]}}, "unknown GPU 5: this machine has 2 GPUs (0, 1)"),
    (
        2,
        {"a": {"gpus": 0.6, "workers": 3}},
        "1.8 GPUs requested (a 3 x 0.6), but this machine has 2 GPUs, and a share cannot span two",
    ),
]


@pytest.mark.parametrize(("count", "services", "message"), TOO_MUCH)
def test_too_much_is_refused_with_the_sum(
    count: int, services: dict[str, dict[str, object]], message: str
) -> None:
    with pytest.raises(GpuError) as found:
        with_gpus(plan(**services), ids(count), NO_PLAN)
    assert str(found.value) == message


def test_ten_tenths_are_one() -> None:
    assert set(dealt(1, a={"gpus": 0.1, "workers": 10})["a"]) == {("0",)}


WISH = st.one_of(st.sampled_from([0, 0.25, 0.5, 1, 2]))


@given(
    st.integers(0, 6),
    st.lists(st.tuples(WISH, st.integers(1, 3)), max_size=4),
    st.lists(st.tuples(WISH, st.integers(1, 3)), max_size=4),
)
def test_nothing_is_given_twice(
    count: int, first: list[tuple[float, int]], then: list[tuple[float, int]]
) -> None:
    """However often it is dealt anew, and what comes out is just what was asked for."""
    before = NO_PLAN
    for wishes in (first, then):
        services: dict[str, dict[str, object]] = {
            f"s{index}": {"gpus": each, "workers": workers}
            for index, (each, workers) in enumerate(wishes)
        }
        try:
            before = with_gpus(plan(**services), ids(count), before)
        except GpuError:
            assert sum(each * workers for each, workers in wishes) > count / 2
            continue
        used = dict.fromkeys(ids(count).ids, 0.0)
        for index, (each, workers) in enumerate(wishes):
            given_to = before.service(f"s{index}").gpus
            assert len(given_to) == (workers if each else 0)
            for worker in given_to:
                assert len(worker) == max(1, int(each))
                for one in worker:
                    used[one] += min(1.0, each)
        assert all(total <= 1.0 + 1e-6 for total in used.values())
