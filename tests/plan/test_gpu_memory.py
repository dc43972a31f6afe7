"""Memory of GPUs as a quantity: what fits, and who gets which GPU."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servd.plan.diff import diff
from servd.plan.gpu_inventory import CONTEXT_BYTES, GIB, find_gpu
from servd.plan.gpu_warnings import gpu_warnings
from servd.plan.gpus import GpuError, GpuInventory, with_gpus
from servd.wire.gpus import Gpu

from support.gpu_plans import NO_PLAN, TOTAL, dealt, equal, gpu, instance, machine, one, part, plan

# what fits

CONTEXT = "0.5 GiB of it for each worker's CUDA context"

TOO_MUCH = [
    (
        equal(1),
        {"llm": part(0.5, "70GiB"), "ocr": part(0.25, "9GiB")},
        "ocr",
        f"llm 70GiB + ocr 9GiB, but a GPU has 79.6 GiB, {CONTEXT}",
    ),
    (
        equal(1),
        {"llm": {"gpus": {"count": 1, "memory": "90GiB"}}},
        "llm",
        f"llm 90GiB, but a GPU has 79.6 GiB, {CONTEXT}",
    ),
    (
        equal(2),
        {"llm": {"gpus": {"count": 2, "memory": "79.5GiB"}}},
        "llm",
        f"llm 79.5GiB, but a GPU has 79.6 GiB, {CONTEXT}",
    ),
    (
        equal(2),
        {"a": part(0.1, "45GiB", workers=3)},
        "a",
        f"a 3 x 45GiB, but each of the 2 GPUs has 79.6 GiB, {CONTEXT}",
    ),
    (
        equal(1, 80 * GIB),
        {"a": {"gpus": 0.5}, "b": part(0.5, "40GiB")},
        "b",
        f"a 0.5 (40 GiB) + b 40GiB, but a GPU has 80 GiB, {CONTEXT}",
    ),
    (
        machine(gpu(0, 80 * GIB), gpu(1, 24 * GIB)),
        {"a": part(0.1, "60GiB", workers=2)},
        "a",
        f"a 2 x 60GiB, but each of the 2 GPUs has 80 or 24 GiB, {CONTEXT}",
    ),
    (
        machine(instance(0), instance(1)),
        {"a": {"gpus": 2}},
        "a",
        "a CUDA process sees one MIG instance, but each worker is to get 2 GPUs",
    ),
    (
        machine(instance(0), instance(1)),
        {"a": {"gpus": ["MIG-0", "MIG-1"]}},
        "a",
        "a CUDA process sees one MIG instance, but this gives it 2 GPUs",
    ),
    (
        machine(gpu(0), instance(0), instance(1)),
        {"a": {"gpus": {"count": 2, "memory": "1GiB"}}},
        "a",
        "a CUDA process sees one MIG instance, but each worker is to get 2 GPUs",
    ),
    (
        equal(1),
        {"a": part(0.6, "1GiB", workers=2)},
        "a",
        "1.2 GPUs requested (a 2 x 0.6), but this machine has 1 GPU",
    ),
    (equal(2), {"a": {"gpus": [0, "GPU-0"]}}, "a", "GPU 0 is named twice"),
    (
        equal(2),
        {
            "a": {"gpus": 1},
            "b": part(0.5, "45GiB"),
            "c": {"gpus": {"share": 0.5, "memory": "45GiB"}},
        },
        "c",
        (
            "b 45GiB + c 45GiB, but each of the 2 GPUs has 79.6 GiB, "
            "0.5 GiB of it for each worker's CUDA context"
        ),
    ),
    (equal(2), {"a": {"gpus": [7]}}, "a", "unknown GPU 7: this machine has 2 GPUs (0, 1)"),
]


@pytest.mark.parametrize(("gpus", "services", "service", "message"), TOO_MUCH)
def test_too_much_memory_is_refused_with_the_sum(
    gpus: GpuInventory, services: dict[str, Any], service: str, message: str
) -> None:
    with pytest.raises(GpuError) as found:
        with_gpus(plan(**services), gpus, NO_PLAN)
    assert (found.value.service, str(found.value)) == (service, message)


FITS: list[tuple[GpuInventory, dict[str, Any]]] = [
    (equal(1), {"llm": part(0.5, "69.6GiB"), "ocr": part(0.25, "9GiB")}),
    (equal(1, 80 * GIB), {"a": {"gpus": 0.25, "workers": 4}}),
    (equal(1, 80 * GIB), {"a": {"gpus": 0.5}, "b": part(0.5, "39.5GiB")}),
    (equal(1, 0), {"a": part(0.5, "900GiB"), "b": part(0.5, "900GiB")}),
    (equal(2), {"a": part(0.1, "45GiB", workers=2)}),
    (machine(gpu(0, 24 * GIB), gpu(1)), {"a": {"gpus": {"count": 1, "memory": "70GiB"}}}),
    (
        machine(instance(0), instance(1, 10 * GIB)),
        {"a": {"gpus": 1}, "llm": {"gpus": {"count": 1, "memory": "30GiB"}}},
    ),
    (
        machine(gpu(0, 80 * GIB), gpu(1, 40 * GIB)),
        {"a": {"gpus": {"memory": "20GiB"}}, "b": {"gpus": {"memory": "70GiB"}}},
    ),
    (equal(2), {"a": part(0.1, "30GiB", workers=2), "b": part(0.1, "45GiB", workers=2)}),
]


@pytest.mark.parametrize(("gpus", "services"), FITS)
def test_what_fits_is_planned(gpus: GpuInventory, services: dict[str, Any]) -> None:
    """Also where nothing is known of the memory."""
    assert all(dealt(gpus, **services).values())


def test_a_worker_gets_a_gpu_that_is_large_enough() -> None:
    small_first = machine(gpu(0, 24 * GIB), gpu(1))
    found = dealt(
        small_first, a={"gpus": {"count": 1, "memory": "70GiB"}}, b={"gpus": {"memory": "20GiB"}}
    )
    assert found == {"a": (("GPU-1",),), "b": (("GPU-0",),)}


def test_memory_is_packed_where_spreading_leaves_too_little() -> None:
    found = dealt(equal(2), a=part(0.1, "30GiB", workers=2), b=part(0.1, "70GiB"))
    (large,) = found["b"]
    assert set(found["a"]) == {("GPU-0",), ("GPU-1",)} - {large}


def test_workers_keep_gpus_on_which_there_is_room() -> None:
    before = with_gpus(plan(b=part(0.2, "20GiB")), equal(2), NO_PLAN)
    held = before.service("b").gpus
    assert dealt(equal(2), before, a=part(0.2, "60GiB"), b=part(0.2, "20GiB"))["b"] == held


@given(
    st.lists(st.tuples(st.sampled_from([0.1, 0.3, 1.0]), st.integers(1, 60)), max_size=5),
    st.integers(1, 3),
)
def test_no_gpu_is_given_more_than_it_has(wishes: list[tuple[float, int]], count: int) -> None:
    services: dict[str, Any] = {
        f"s{index}": {
            "gpus": {("count" if share == 1 else "share"): int(share) or share,
                     "memory": f"{memory}GiB"}
        }
        for index, (share, memory) in enumerate(wishes)
    }  # fmt: skip
    try:
        found = dealt(equal(count), **services)
    except GpuError:
        needed = sum(memory + 0.5 for _, memory in wishes)
        assert needed > 20 or sum(share for share, _ in wishes) > count / 2
        return
    taken = dict.fromkeys(equal(count).ids, 0)
    for index, (_, memory) in enumerate(wishes):
        for ids in found[f"s{index}"]:
            for each in ids:
                taken[each] += memory * GIB + CONTEXT_BYTES
    assert all(bytes_ <= TOTAL for bytes_ in taken.values())


# which GPU is which


def test_ids_stay_and_numbers_are_shown() -> None:
    found = one(equal(2), gpus=[1])
    assert (found.gpus, found.gpu_names) == ((("GPU-1",),), {"GPU-1": "1"})
    by_id = one(equal(2), gpus=["GPU-1"])
    assert by_id.gpus == found.gpus


def test_a_shift_of_numbers_is_no_change() -> None:
    wanted = plan(a={"gpus": [1]}, b={"gpus": 0.5})
    before = with_gpus(plan(a={"gpus": ["GPU-1"]}), equal(2), NO_PLAN)
    shifted = machine(Gpu("GPU-1", "0", total=TOTAL))
    after = with_gpus(plan(a={"gpus": ["GPU-1"]}), shifted, before)
    assert diff(before, after) == ()
    assert after.service("a").gpu_names == {"GPU-1": "0"}
    assert with_gpus(wanted, equal(2), NO_PLAN).service("b").gpus == (("GPU-0",),)


def test_instances_are_called_by_their_id() -> None:
    found = one(machine(instance(0)), gpus=1)
    assert (found.gpus, found.gpu_names) == ((("MIG-0",),), {"MIG-0": "MIG-0"})


def test_more_that_is_known_of_gpus_is_no_change() -> None:
    """A driver that answers later than the first plan rolls nobody."""
    declared = GpuInventory(("0", "1"), declared=True)
    wanted = plan(a={"gpus": 1}, b={"gpus": {"memory": "70GiB"}})
    before = with_gpus(wanted, declared, NO_PLAN)
    known = GpuInventory(("GPU-0", "GPU-1"), declared=True, known=(gpu(0), gpu(1)))
    after = with_gpus(wanted, known, before)
    assert [s.gpus for s in after.services] == [s.gpus for s in before.services]
    assert [(c.service, c.kind) for c in diff(before, after)] == [("b", "live")]


@pytest.mark.parametrize(
    ("name", "found"),
    [("0", "GPU-0a"), ("GPU-0a", "GPU-0a"), ("GPU-1", "GPU-1a"), ("GPU-", None), ("", None)],
)
def test_gpus_are_found_by_number_id_and_beginning(name: str, found: str | None) -> None:
    known = (Gpu("GPU-0a", "0"), Gpu("GPU-1a", "1"), Gpu("MIG-1"))
    gpu_ = find_gpu(known, name)
    assert (gpu_.id if gpu_ is not None else None) == found


def near(number: int, **distances: int) -> Gpu:
    return gpu(number, near={f"GPU-{other[1:]}": far for other, far in distances.items()})


def test_near_is_the_closest_set() -> None:
    pairs = machine(
        near(0, g1=40, g2=40, g3=10), near(1, g0=40, g2=10, g3=40),
        near(2, g0=40, g1=10, g3=40), near(3, g0=10, g1=40, g2=40),
    )  # fmt: skip
    close = {"count": 2, "topology": "near"}
    assert one(pairs, gpus=close).gpus == (("GPU-0", "GPU-3"),)
    assert one(pairs, gpus=close, workers=2).gpus == (("GPU-0", "GPU-3"), ("GPU-1", "GPU-2"))
    assert one(pairs, gpus=2).gpus == (("GPU-0", "GPU-1"),)


def test_near_of_many_gpus_is_found_in_time() -> None:
    """Sixteen in groups of four, dealt in turn: the sets are too many to try them all."""
    many = machine(
        *(
            gpu(n, near={f"GPU-{m}": 10 if m % 4 == n % 4 else 50 for m in range(16) if m != n})
            for n in range(16)
        )
    )
    (ids,) = one(many, gpus={"count": 4, "topology": "near"}).gpus
    assert len({int(each.removeprefix("GPU-")) % 4 for each in ids}) == 1


# CPUs next to them


def test_workers_run_on_the_cpus_next_to_their_gpus() -> None:
    gpus = machine(gpu(0, cpus=(0, 1, 2)), gpu(1, cpus=(3, 4)), cpus=(1, 2, 3))
    found = one(gpus, gpus=1, workers=2, cpu_affinity="gpu")
    assert found.identity.affinity == ((1, 2), (3,))
    both = one(gpus, gpus=2, cpu_affinity="gpu")
    assert both.identity.affinity == ((1, 2, 3),)


@pytest.mark.parametrize("cpus", [(), (9,)])
def test_unknown_cpus_are_all_and_said(cpus: tuple[int, ...]) -> None:
    gpus = machine(gpu(0, cpus=cpus), cpus=(0, 1))
    planned = with_gpus(plan(a={"gpus": 1, "cpu_affinity": "gpu"}), gpus, NO_PLAN)
    assert planned.service("a").identity.affinity == ()
    assert [(w.key, w.message) for w in gpu_warnings(planned, {})] == [
        ("cpu_affinity", "the CPUs next to its GPUs are not known: its workers run on all CPUs")
    ]


def test_more_workers_near_their_gpus_are_a_scale() -> None:
    gpus = machine(gpu(0, cpus=(0,)), gpu(1, cpus=(1,)))
    keys = {"gpus": 1, "cpu_affinity": "gpu"}
    before = with_gpus(plan(a=keys), gpus, NO_PLAN)
    after = with_gpus(plan(a={**keys, "workers": 2}), gpus, before)
    assert [c.kind for c in diff(before, after)] == ["scale"]


# what is said


def test_a_service_that_sees_the_gpus_of_others_is_told() -> None:
    services = {
        "llm": {"gpus": {"memory": "70GiB"}},
        "web": {},
        "hidden": {"gpus": "none"},
        "off": {"workers": 0},
        "own": {"env": {"CUDA_VISIBLE_DEVICES": ""}},
    }
    planned = with_gpus(plan(**services), equal(2), NO_PLAN)
    assert [(w.service, w.message, w.hint) for w in gpu_warnings(planned, {})] == [
        ("web", "it sees all GPUs, those of llm too", 'write gpus = "none" to hide them')
    ]


def test_without_names_and_memory_nothing_is_said() -> None:
    planned = with_gpus(plan(llm={"gpus": 1}, web={}), equal(2), NO_PLAN)
    assert list(gpu_warnings(planned, {})) == []


def test_a_peak_above_the_declared_memory_is_said() -> None:
    planned = with_gpus(plan(ocr=part(0.25, "9GiB")), equal(1), NO_PLAN)
    (said,) = gpu_warnings(planned, {"ocr": int(10.4 * GIB)})
    assert (said.message, said.hint) == (
        "declared 9GiB, peak 10.4GiB",
        'write memory = "10GiB"',
    )
    assert list(gpu_warnings(planned, {"ocr": 9 * GIB + CONTEXT_BYTES})) == []


def test_services_without_gpus_are_as_before() -> None:
    before = plan(web={})
    assert with_gpus(before, equal(1), NO_PLAN) is before
    assert dataclasses.replace(before).services[0].gpu_names == {}
