"""What daemon and GPU helper tell each other, and what is not taken for it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from servd.wire.gpu_messages import GpuLines, GpuReport, report_of
from servd.wire.gpus import Gpu, GpuFault, GpuHolder, GpuSnapshot

GPU = Gpu(
    id="GPU-1", number="0", name="H100", total=100, free=60, utilization=0.5, temperature=40.5,
    power=300.0, errors=0, cpus=(0, 1), near={"GPU-2": 10}, holders=(GpuHolder(7, 40, "python"),),
)  # fmt: skip


@pytest.mark.parametrize(
    "report",
    [
        GpuReport(snapshot=GpuSnapshot((GPU, Gpu("MIG-1", parent="GPU-1")), "580", False)),
        GpuReport(snapshot=GpuSnapshot((GPU,)), look=3),
        GpuReport(fault=GpuFault("GPU-1", 79, "Xid 79")),
        GpuReport(failure="no driver"),
    ],
)
def test_a_report_arrives_as_it_was_sent(report: GpuReport) -> None:
    assert report_of(report.line().rstrip(b"\n")) == report


def test_lines_are_put_together() -> None:
    lines = GpuLines()
    assert list(lines.feed(b'{"a"')) == []
    assert list(lines.feed(b': 1}\n{"b": 2}\n{"c')) == [b'{"a": 1}', b'{"b": 2}']
    assert list(lines.feed(b'": 3}\n')) == [b'{"c": 3}']


def test_a_line_without_an_end_is_refused() -> None:
    lines = GpuLines()
    assert list(lines.feed(b"x" * (4 << 20))) == []
    with pytest.raises(ValueError, match="a line of more than"):
        list(lines.feed(b"x"))


def snapshot(**fields: Any) -> bytes:
    return json.dumps({"snapshot": {"gpus": [{"id": "GPU-1", **fields}]}}).encode()


@pytest.mark.parametrize(
    "line",
    [
        b"", b"garbage", b"[]", b"1", b"null", b"{}", b"\xff\xfe", b"[" * 100_000,
        b'{"snapshot": null}', b'{"snapshot": {"gpus": 3}}', b'{"snapshot": {"gpus": [3]}}',
        b'{"snapshot": {"gpus": [], "driver": 5}}',
        b'{"snapshot": {"gpus": [], "names_processes": "yes"}}',
        b'{"snapshot": {"gpus": [{"id": "a"}, {"id": "a"}]}}',
        b'{"fault": {}}', b'{"fault": {"gpu": "a", "xid": "b"}}', b'{"fault": [1]}',
        snapshot(id=""), snapshot(id=7), snapshot(number=0), snapshot(total="x"),
        snapshot(total=1, free=2), snapshot(total=-1), snapshot(total=1.5), snapshot(total=True),
        snapshot(temperature="hot"), snapshot(power=float("nan")), snapshot(utilization=[]),
        snapshot(errors=-1), snapshot(cpus=["a"]), snapshot(near=[]), snapshot(near={"b": "c"}),
        snapshot(holders=[{"pid": "1"}]), snapshot(holders=[{"pid": 1, "memory": "x"}]),
        snapshot(holders=[{"pid": 1, "name": 3}]), snapshot(total=1 << 70),
        snapshot(holders=[{"pid": 1 << 31}]), b'{"snapshot": {"gpus": [], "lost": [1]}}',
    ],
)  # fmt: skip
def test_anything_else_is_no_report(line: bytes) -> None:
    with pytest.raises(ValueError):  # json's own too
        report_of(line)


def test_what_another_version_says_more_is_ignored() -> None:
    found = report_of(snapshot(other=1, holders=[{"pid": 1, "more": 2}])).snapshot
    assert found is not None
    assert found.gpus == (Gpu("GPU-1", holders=(GpuHolder(1),)),)
    fault = report_of(b'{"fault": {"gpu": "a", "xid": 79, "when": 3}}').fault
    assert fault == GpuFault("a", 79)
