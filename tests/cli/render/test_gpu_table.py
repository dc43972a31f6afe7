"""GPUs as lines of a terminal."""

from __future__ import annotations

from typing import Any

import pytest

from servd.cli.render import service_facts as facts
from servd.cli.render.columns import service_table, worker_table
from servd.cli.render.figures import gigabytes
from servd.cli.render.gpu_table import gpu_lines

from support.statuses import NOW, service, worker

GIB = 1 << 30


def use(number: str = "0", memory: int | None = GIB, **more: Any) -> dict[str, Any]:
    """A GPU of a worker."""
    return {"id": f"GPU-{number}", "number": number, "name": "H100", "memory_bytes": memory, **more}


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0, "0"), (GIB, "1"), (int(38.2 * GIB), "38.2"), (80 * GIB, "80"), (1, "0")],
)
def test_memory_is_told_in_gibibytes(value: int | None, text: str) -> None:
    assert gigabytes(value) == text


@pytest.mark.parametrize(
    ("uses", "text"),
    [
        ([], ""),
        ([use()], "0 1G"),
        ([use("10"), use("2"), use("2")], "2,10 3G"),
        ([use(), use("1", None)], "0,1 -"),
        ([use("", id="MIG-12345678-1234")], "MIG-12345678 1G"),
        ([use(memory=int(38.2 * GIB), declared_bytes=70 * GIB)], "0 38.2/70G"),
        ([use(memory=None, declared_bytes=70 * GIB)], "0 -/70G"),
    ],
)
def test_the_cell_of_a_service(uses: list[dict[str, Any]], text: str) -> None:
    assert facts.gpu_cell([worker(gpus=[each]) for each in uses]) == text


def test_the_column_is_there_where_a_service_has_gpus() -> None:
    with_one = service("llm", processes=[worker(gpus=[use()])])
    table = service_table([service("web"), with_one], 160, NOW)
    assert "GPU" in table.head.plain
    assert "0 1G" in table.rows[1].plain
    assert "GPU" not in service_table([service("web")], 160, NOW).head.plain
    workers = worker_table([worker(), worker(1, gpus=[use()])], 160, NOW)
    assert "GPU" in workers[0].plain
    assert "0 1G" in workers[2].plain
    assert "GPU" not in worker_table([worker()], 160, NOW)[0].plain


def gpu(**more: Any) -> dict[str, Any]:
    """A GPU of the answer to `GET /v1/gpus`."""
    return {
        "id": "GPU-a", "number": "0", "name": "NVIDIA H100", "parent": "",
        "memory_bytes": 80 * GIB, "used_bytes": int(38.2 * GIB), "utilization": 0.42,
        "temperature_celsius": 55, "power_watts": 310.5, "ecc_errors": 0, "trouble": "",
        "holders": [], **more,
    }  # fmt: skip


def holder(pid: int, memory: int | None, service: str | None = None) -> dict[str, Any]:
    """A process of it."""
    index = 0 if service else None
    return {
        "pid": pid, "name": "python", "memory_bytes": memory, "service": service, "worker": index,
    }  # fmt: skip


def lines(*gpus: dict[str, Any], by_daemon: bool = True, **more: Any) -> list[str]:
    listed = {"driver": "1", "names_processes": True, "error": None, "gpus": [*gpus], **more}
    return [line.plain for line in gpu_lines(listed, 120, by_daemon=by_daemon)]


def test_a_gpu_is_a_row_with_its_holders_below_the_largest_first() -> None:
    found = lines(gpu(holders=[holder(7, GIB), holder(9, 37 * GIB, "llm")]))
    assert found == [
        "GPU  MODEL          MEMORY  UTIL%  TEMP C  POWER W  ECC ERRORS",
        "0    NVIDIA H100  38.2/80G     42      55      310           0",
        "    GPU-a",
        "    llm worker 0, pid 9 (python): 37G",
        "    pid 7 (python), not of this servd: 1G",
    ]


def test_without_a_daemon_nobody_is_called_a_stranger() -> None:
    assert lines(gpu(holders=[holder(7, None)]), by_daemon=False)[-1] == "    pid 7 (python): -"


def test_instances_and_trouble_are_told() -> None:
    found = lines(
        gpu(trouble="a row of its memory cannot be remapped"),
        gpu(id="MIG-1", number="", parent="GPU-a", utilization=None, temperature_celsius=None),
    )
    assert "    a row of its memory cannot be remapped" in found
    assert "    instance of GPU-a" in found
    assert any(line.startswith("MIG-1") for line in found)


def test_a_container_and_a_machine_without_gpus_are_told() -> None:
    assert lines(gpu(), names_processes=False)[-1].startswith("the driver does not tell which")
    assert lines() == ["This machine has no GPUs."]


def test_a_gpu_that_has_failed_tells_how_to_release_it() -> None:
    found = lines(gpu(id="GPU-a", quarantine="Xid 79: fell off the bus"))
    assert "    in quarantine: Xid 79: fell off the bus (servd gpus release GPU-a)" in found
