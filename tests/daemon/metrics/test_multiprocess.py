"""Files of prometheus_client's multiprocess mode, which a service may fill with anything."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

from servd.daemon.metrics.multiprocess import AppMetrics

DEAD = 2**22 + 1
"""No process has this pid: it is above the largest (proc(5), pid_max)."""


def written(path: Path, **values: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = MmapedDict(str(path))  # type: ignore[no-untyped-call]
    for name, value in values.items():
        key = json.dumps([name, f"{name}_total", {}, "Help."])
        file.write_value(key, value, 0.0)  # type: ignore[no-untyped-call]
    file.close()  # type: ignore[no-untyped-call]


@pytest.fixture
def metrics(tmp_path: Path) -> AppMetrics:
    return AppMetrics(str(tmp_path / "m"), str(tmp_path / "private"))


def total(metrics: AppMetrics, name: str) -> float:
    return sum(
        sample.value
        for family in metrics.families("web")
        if family.name == name
        for sample in family.samples
    )


def test_the_dead_are_folded_into_one_file_and_counted_on(
    metrics: AppMetrics, tmp_path: Path
) -> None:
    folder = tmp_path / "m" / "web"
    written(folder / f"counter_{os.getpid()}.db", seen=1)
    for pid in range(DEAD, DEAD + 20):
        written(folder / f"counter_{pid}.db", seen=2)
        written(folder / f"gauge_all_{pid}.db", level=5)
    assert total(metrics, "seen") == 41
    assert total(metrics, "level") == 0
    left = {path.name for path in folder.iterdir()}
    assert left == {f"counter_{os.getpid()}.db", "counter_0.db"}
    assert total(metrics, "seen") == 41
    written(folder / f"counter_{DEAD}.db", seen=3)
    metrics.fold("web")
    assert not (folder / f"counter_{DEAD}.db").exists()
    assert total(metrics, "seen") == 44


def by_itself(folder: Path) -> dict[str, float]:
    """What an app shows that reads its folder by itself, as prometheus_client documents it."""
    files = [str(path) for path in folder.glob("*.db")]
    families = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
    return {s.name: s.value for family in families for s in family.samples}


def test_an_app_that_shows_its_metrics_by_itself_counts_on(
    metrics: AppMetrics, tmp_path: Path
) -> None:
    folder = tmp_path / "m" / "web"
    written(folder / f"counter_{os.getpid()}.db", seen=1)
    for pid in range(DEAD, DEAD + 3):
        written(folder / f"counter_{pid}.db", seen=2)
        metrics.fold("web")
        metrics.fold("web")
    assert by_itself(folder) == {"seen_total": 7}
    (folder / "counter_0.db").unlink()
    (folder / "counter_0.db").symlink_to(tmp_path / "elsewhere")
    (folder / ".counter_0.db").symlink_to(tmp_path / "elsewhere")
    written(folder / f"counter_{DEAD}.db", seen=2)
    metrics.fold("web")
    assert by_itself(folder) == {"seen_total": 9}
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_refuses_the_sums_of_the_dead_harms_only_itself(
    metrics: AppMetrics, tmp_path: Path
) -> None:
    folder = tmp_path / "m" / "web"
    (folder / ".counter_0.db").mkdir(parents=True)
    written(folder / f"counter_{DEAD}.db", seen=2)
    assert total(metrics, "seen") == 2


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None
)
@given(
    content=st.binary(max_size=200)
    | st.builds(
        lambda used, entries: struct.pack("ii", used, 0) + entries,
        st.integers(-100, 400),
        st.binary(max_size=300),
    )
)
def test_any_content_is_survived(metrics: AppMetrics, tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "m" / "web"
    folder.mkdir(parents=True, exist_ok=True)
    for kind in ("counter", "histogram", "gauge_all"):
        (folder / f"{kind}_{os.getpid()}.db").write_bytes(content)
        (folder / f"{kind}_{DEAD}.db").write_bytes(content)
    metrics.families("web")


def test_a_damaged_file_takes_only_itself_out(metrics: AppMetrics, tmp_path: Path) -> None:
    folder = tmp_path / "m" / "web"
    written(folder / f"counter_{os.getpid()}.db", seen=1)
    (folder / f"histogram_{os.getpid()}.db").write_bytes(b"\xff" * 100)
    (folder / f"summary_{os.getpid()}.db").symlink_to("/etc/passwd")
    os.mkfifo(folder / "gauge_all_1.db")
    (folder / "counter_x.db").write_bytes(b"")
    (folder / "notes.txt").write_text("mine")
    assert total(metrics, "seen") == 1
    assert (folder / "notes.txt").exists()


@pytest.mark.parametrize(
    "key",
    [
        ["seen", "seen_total", {"a": ["list"]}, "Help."],
        ["seen", "seen_total", {"a": 1}, "Help."],
        ["seen", "other_total", {}, "Help."],
        ["seen", 'seen_total{x="y"} 1\n', {}, "Help."],
        ["seen", "seen_total", {'a="b"} 1\n': "c"}, "Help."],
        json.loads("[" * 500 + "]" * 500),
    ],
)
def test_what_is_no_metric_is_not_shown(metrics: AppMetrics, tmp_path: Path, key: object) -> None:
    folder = tmp_path / "m" / "web"
    written(folder / f"gauge_all_{os.getpid()}.db", seen=1)
    file = MmapedDict(str(folder / f"counter_{os.getpid()}.db"))  # type: ignore[no-untyped-call]
    file.write_value(json.dumps(key), 1.0, 0.0)  # type: ignore[no-untyped-call]
    file.close()  # type: ignore[no-untyped-call]
    assert total(metrics, "seen") == 1


def test_names_of_servds_own_are_left_out_alone(metrics: AppMetrics, tmp_path: Path) -> None:
    written(tmp_path / "m" / "web" / f"counter_{os.getpid()}.db", servd_requests=1000, seen=1)
    assert [family.name for family in metrics.families("web")] == ["seen"]


def test_folders_of_all_users_that_a_service_ran_as_are_one(
    metrics: AppMetrics, tmp_path: Path
) -> None:
    written(tmp_path / "m" / "web" / f"counter_{DEAD}.db", seen=1)
    written(tmp_path / "m" / "web~33" / f"counter_{os.getpid()}.db", seen=2)
    written(tmp_path / "m" / "webs" / f"counter_{os.getpid()}.db", seen=50)
    assert total(metrics, "seen") == 3


def test_a_file_with_a_second_name_is_left_out(metrics: AppMetrics, tmp_path: Path) -> None:
    """Hard links multiply a file, and show the daemon one of another user."""
    folder = tmp_path / "m" / "web"
    written(folder / f"counter_{os.getpid()}.db", seen=1)
    written(tmp_path / "outside.db", seen=100)
    for number in range(1, 100):
        os.link(tmp_path / "outside.db", folder / f"counter_{number}.db")
    assert total(metrics, "seen") == 1


@pytest.mark.parametrize("kind", ["gauge_everything", "gauge_", "counters", "gauge_all_all"])
def test_what_is_no_mode_of_a_gauge_is_left_out(
    metrics: AppMetrics, tmp_path: Path, kind: str
) -> None:
    written(tmp_path / "m" / "web" / f"{kind}_{os.getpid()}.db", seen=1)
    assert metrics.families("web") == []


def test_a_service_has_a_budget(
    metrics: AppMetrics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("servd.daemon.metrics.multiprocess.BUDGET_BYTES", 1000)
    folder = tmp_path / "m" / "web"
    alive = [os.getpid(), os.getppid(), 1]
    for pid in alive:
        written(folder / f"counter_{pid}.db", **{f"n{number}": 1.0 for number in range(8)})
    found = metrics.families("web")
    assert 0 < sum(len(family.samples) for family in found) < 3 * 8
    for number in range(50):
        written(folder / f"summary_{DEAD}.db", **{f"s{number}_{n}": 1.0 for n in range(8)})
        metrics.fold("web")
    folded = tmp_path / "private" / "web" / "summary_0.db"
    assert folded.stat().st_size <= 1100
