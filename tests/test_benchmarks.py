"""The pure parts of the benchmarks: statistics, tables, and what is read of other programs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import bentoml_tests
from harness import in_place_of_bentoml, machine, proc, servers, stats, tables, wrk
from harness.tables import Column, Line, Result

BENCHMARKS = sys.path.pop()  # its files are named like packages, which others import

WRK = """
Running 1s test @ http://127.0.0.1:1/ping
  Latency Distribution
     50%  812.00us
     75%    1.00ms
     90%    2.00ms
     99%    1.50s
  12345 requests in 1.00s, 1.00MB read
  Socket errors: connect 1, read 2, write 0, timeout 3
  Non-2xx or 3xx responses: 4
Requests/sec:  12345.60
"""


def result(**samples: list[float]) -> Result:
    columns = (Column("cpu", "CPU", 1), Column("cpu", "ratio", 2, over="b"))
    found = Result("load", "Load", "How.", columns)
    for server, values in samples.items():
        for value in values:
            found.add(server, {"cpu": value})
    return found


def test_an_interval_holds_the_median_and_is_the_same_each_time() -> None:
    values = [5.0, 1.0, 2.0, 4.0, 3.0]
    middle, low, high = stats.interval(values)
    assert (middle, stats.interval(values)) == (3.0, (middle, low, high))
    assert 1.0 <= low <= middle <= high <= 5.0
    assert stats.interval([7.0]) == (7.0, 7.0, 7.0)


def test_ratios_pair_what_was_measured_at_the_same_place() -> None:
    assert stats.ratios([2.0, 9.0, 8.0], [1.0, 3.0]) == [2.0, 3.0]
    assert stats.ratios([2.0, 9.0], [0.0, 3.0]) == [3.0]


def test_a_table_has_a_row_for_each_server_and_says_what_failed() -> None:
    found = result(a=[2.0, 4.0], b=[1.0])
    found.failed["c"] = "exited with 1:\n a | b"
    assert tables.table(found).splitlines() == [
        "|  | CPU | ratio |",
        "|---|---|---|",
        "| a | 3.0 (2.0–4.0) | 2.00 |",  # noqa: RUF001
        "| b | 1.0 | 1.00 |",
        "| c | failed: exited with 1: a / b | - |",
    ]


def test_what_fails_later_keeps_what_was_measured() -> None:
    found = result(a=[2.0], b=[1.0])
    found.failed["a"] = "no answer"
    assert "| a | 2.0, then failed: no answer | - |" in tables.table(found)


def test_a_ratio_over_a_server_that_is_left_out_is_empty() -> None:
    assert "| a | 2.0 | - |" in tables.table(result(a=[2.0]))


def test_the_page_has_all_tables_and_their_plots() -> None:
    page = tables.page([result(a=[1.0])], ["- Commit x"], {"load": ["load.png"]})
    assert page.startswith("# Benchmark results\n")
    assert "- Commit x\n\n## Load\n\nHow.\n\n|  | CPU" in page
    assert page.endswith("![Load](load.png)\n")


def test_the_short_table_has_medians_in_columns_of_servers() -> None:
    lines = [Line("cpu", "load", ("cpu",), "{:.0f} µs"), Line("other", "no such", ("x",), "")]
    found = result(a=[1.0, 2.0, 9.0], b=[4.0])
    found.failed["b"] = "no answer"
    assert tables.summary(lines, [found], ["a", "b", "c"]).splitlines() == [
        "|  | a | b | c |",
        "|---|---|---|---|",
        "| cpu | 2 µs | - | - |",
    ]


def test_a_block_is_replaced_between_its_marks_alone() -> None:
    text = f"before\n{tables.BEGIN}\nold\\1\n{tables.END}\nafter\n"
    changed = tables.with_block(text, "new\\1")
    assert changed == f"before\n{tables.BEGIN}\nnew\\1\n{tables.END}\nafter\n"
    with pytest.raises(ValueError, match="marks are missing"):
        tables.with_block("nothing", "new")


def test_the_page_of_readers_has_the_marks() -> None:
    readme = (Path(BENCHMARKS).parent / "README.md").read_text()
    assert tables.with_block(readme, "new") != readme


def test_the_output_of_wrk_is_read() -> None:
    assert wrk.parsed(WRK) == wrk.Load(12345, 10, 12345.6, 0.812, 1500.0)
    with pytest.raises(ValueError, match="not understood"):
        wrk.parsed("wrk: command not found")


def test_memory_and_cpu_time_are_read_as_the_kernel_writes_them() -> None:
    assert proc.pss_kib("Rss: 9 kB\nPss:   1234 kB\nPss_Dirty: 7 kB\n") == 1234
    line = machine.cpu_line("cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 0 0\n")
    assert line == [1, 2, 3, 4, 5, 6, 7, 8]
    assert machine.shares([0] * 8, [10, 0, 0, 60, 10, 0, 0, 20]) == (10.0, 20.0)


def test_the_command_is_shown_without_folders_of_the_machine() -> None:
    assert machine.said(["--quick", "--servd", "/a/b/python", "--peers", "peers"]) == (
        "run.py --quick --servd python --peers peers"
    )


def test_commands_have_the_workers_and_the_log_that_were_asked_for(tmp_path: Path) -> None:
    place = servers.Place(tmp_path, 8123)
    for access_log in (False, True):
        what = servers.Setting("", workers=3, access_log=access_log)
        server = servers.servd("servd", Path(sys.executable))
        server.command(what, place)
        config = (tmp_path / "servd.toml").read_text()
        assert f"workers = 3\nlog = {{ access = {str(access_log).lower()} }}" in config
        assert "numprocesses = 3" in servers.circus_ini(tmp_path, what, place)
        assert ("--no-access-log" in servers.uvicorn(tmp_path, what, place)) is not access_log
        assert ("--access-logfile" in servers.gunicorn(tmp_path, what, place)) is access_log
        assert ("--access-log" in servers.granian(tmp_path, what, place)) is access_log


def test_what_is_not_installed_is_left_out_with_a_word(tmp_path: Path) -> None:
    said: list[str] = []
    names = [server.name for server in servers.found(tmp_path, None, said.append)]
    assert names[0] == "servd"
    assert "granian" not in names
    assert any(line.startswith("left out: granian (python is not installed") for line in said)


REPORT = """
<testsuites><testsuite name="pytest">
  <testcase classname="tests.e2e.http.tests.test_io" name="test_json[standalone]" time="1"/>
  <testcase classname="tests.e2e.sdk.test_asgi" name="test_a"><failure message="m"/></testcase>
  <testcase classname="tests.e2e.sdk.test_asgi" name="test_b"><error message="m"/></testcase>
  <testcase classname="tests.e2e.sdk.test_asgi" name="test_c"><skipped message="m"/></testcase>
</testsuite></testsuites>
"""


def test_a_report_of_pytest_says_what_came_of_each_test() -> None:
    assert bentoml_tests.outcomes(REPORT) == {
        "e2e/http: test_io.test_json[standalone]": "passed",
        "e2e/sdk: test_asgi.test_a": "failed",
        "e2e/sdk: test_asgi.test_b": "error",
        "e2e/sdk: test_asgi.test_c": "skipped",
    }


def test_what_passes_with_bentoml_has_to_pass_with_servd() -> None:
    columns = {
        "BentoML": {"a": "passed", "b": "passed", "c": "failed", "d": "passed"},
        "servd": {"a": "passed", "b": "failed", "c": "failed"},
    }
    assert bentoml_tests.worse(columns) == ["b", "d"]
    assert bentoml_tests.worse({"servd": {"a": "failed"}}) == []
    lines = bentoml_tests.page(columns, ["Commit x"]).splitlines()
    assert "- Commit x" in lines
    assert lines[-6:] == [
        "|---|---|---|",
        "| a | passed | passed |",
        "| b | passed | failed |",
        "| c | failed | failed |",
        "| d | passed | not run |",
        "| **passed** | 3 of 4 | 1 of 4 |",
    ]


def test_only_the_command_of_bentomls_server_is_replaced() -> None:
    in_place = in_place_of_bentoml.in_place
    argv = ["python", "-m", "bentoml", "serve", "--port", "1", "service:svc"]
    assert in_place(argv) == ["python", "-m", "servd", "serve", "--port", "1", "service:svc"]
    for other in (["python", "-m", "bentoml", "serve-grpc"], ["python", "train.py"], "true"):
        assert in_place(other) == other
