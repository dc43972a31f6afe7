"""Which GPUs services may have: the driver's, those of the config, or those of the operator."""

from __future__ import annotations

from typing import Any

import pytest

from servd.host.gpus import usable_gpus
from servd.plan.gpus import GpuInventory
from servd.wire.gpus import Gpu, GpuSnapshot

A, B = Gpu("GPU-a1", "0", "H100"), Gpu("GPU-b2", "1", "H100")
TWO = GpuSnapshot((A, B))
CUT = GpuSnapshot((A, B, Gpu("MIG-1", parent="GPU-b2"), Gpu("MIG-2", parent="GPU-b2")))
UNLIKE = GpuSnapshot((A, Gpu("GPU-b2", "1", "L4")))


def found(configured: Any, snapshot: GpuSnapshot | None, **environ: str) -> GpuInventory:
    return usable_gpus(configured, environ, snapshot)


CONFIGURED = [
    ("auto", TWO, ("GPU-a1", "GPU-b2")),
    ("auto", None, ()),
    ("auto", CUT, ("GPU-a1", "MIG-1", "MIG-2")),
    (3.0, None, ("0", "1", "2")),
    (1.0, TWO, ("GPU-a1",)),
    (4.0, TWO, ("GPU-a1", "GPU-b2", "2", "3")),
    ((1, "GPU-a1"), TWO, ("GPU-b2", "GPU-a1")),
    ((1, "GPU-b2"), TWO, ("GPU-b2",)),
    ((1, 7), TWO, ("GPU-b2", "7")),
    ((1, 7), None, ("1", "7")),
    (("MIG-2",), CUT, ("MIG-2",)),
]


@pytest.mark.parametrize(("configured", "snapshot", "ids"), CONFIGURED)
def test_the_config_counts_or_names_them(
    configured: Any, snapshot: GpuSnapshot | None, ids: tuple[str, ...]
) -> None:
    gpus = found(configured, snapshot)
    assert gpus.ids == ids
    assert gpus.declared == (configured != "auto")
    assert gpus.ordered


OPERATOR = [
    ("1", TWO, ("GPU-b2",), ("1",)),
    ("GPU-b", TWO, ("GPU-b2",), ("GPU-b",)),
    ("1,0", TWO, ("GPU-b2", "GPU-a1"), ("1", "0")),
    ("1,-1,0", TWO, ("GPU-b2",), ("1",)),
    ("0, 1", None, ("0", "1"), ("0", "1")),
    ("", TWO, (), ()),
    ("1", UNLIKE, ("1",), ("1",)),
    ("MIG-1", CUT, ("MIG-1",), ("MIG-1",)),
]


@pytest.mark.parametrize(("text", "snapshot", "ids", "names"), OPERATOR)
def test_what_the_operator_allows_keeps_its_names(
    text: str, snapshot: GpuSnapshot | None, ids: tuple[str, ...], names: tuple[str, ...]
) -> None:
    gpus = found("auto", snapshot, CUDA_VISIBLE_DEVICES=text)
    assert gpus.ids == ids
    assert tuple(map(gpus.visible, gpus.ids)) == names
    assert not gpus.ordered


def test_numbers_are_the_drivers_where_cuda_is_told_to_count_so() -> None:
    told = {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert found("auto", UNLIKE, **told).ids == ("GPU-b2",)
