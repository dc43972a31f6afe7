"""What an error of a GPU means for it."""

from __future__ import annotations

import pytest

from servd.plan.gpu_faults import Quarantine, meaning_of, text_of, troubles
from servd.wire.gpus import Gpu, GpuFault, GpuSnapshot

BOTH = GpuSnapshot((Gpu("GPU-a", "0"), Gpu("GPU-b", "1"), Gpu("MIG-1", parent="GPU-b")))
ONE = GpuSnapshot((Gpu("GPU-b", "1"),))
GONE = GpuFault("GPU-a", 0, "the driver does not list it any more")


@pytest.mark.parametrize(
    ("fault", "now", "meaning"),
    [
        (GpuFault("GPU-a", 31), BOTH, "application"),
        (GpuFault("GPU-a", 13), None, "application"),
        (GpuFault("GPU-a", 79), BOTH, "failed"),
        (GpuFault("GPU-a", 94), None, "failed"),
        (GONE, ONE, "failed"),
        (GONE, GpuSnapshot(), "driver"),
        (GpuFault("GPU-a", 0, "uncorrectable memory errors rose from 0 to 1"), BOTH, "failed"),
    ],
)
def test_what_an_error_means(fault: GpuFault, now: GpuSnapshot | None, meaning: str) -> None:
    assert meaning_of(fault, now) == meaning


def test_an_error_as_people_read_it() -> None:
    assert text_of(GpuFault("x", 79, "fell off the bus")) == "Xid 79: fell off the bus"
    assert text_of(GpuFault("x", 79)) == "Xid 79"
    assert text_of(GONE) == "the driver does not list it any more"
    assert text_of(GpuFault("x", 0)) == "an error without a number"


def test_trouble_is_a_fault_once_for_each_text() -> None:
    sick = GpuSnapshot((Gpu("GPU-a", trouble="row remap pending"), Gpu("GPU-b")))
    assert list(troubles(sick, {})) == [GpuFault("GPU-a", 0, "row remap pending")]
    assert not list(troubles(sick, {"GPU-a": "row remap pending"}))
    assert list(troubles(sick, {"GPU-a": "row remap failed"}))


def test_a_quarantine_covers_every_name_and_each_instance() -> None:
    sick = Quarantine({"GPU-b": "Xid 79"})
    known = BOTH.gpus
    assert sick.reason("GPU-b", known) == sick.reason("1", known) == "Xid 79"
    assert sick.reason("MIG-1", known) == "Xid 79"
    assert sick.reason("GPU-a", known) == sick.reason("0", known) == ""
    assert sick.reason("GPU-b", ()) == "Xid 79"  # gone
    assert sick.without(("GPU-a", "GPU-b", "MIG-1"), known) == ("GPU-a",)
