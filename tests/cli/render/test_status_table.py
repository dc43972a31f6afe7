"""The status as text, at several widths."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest

from servd.cli.render.status_table import (
    Page,
    detail_lines,
    last_seen,
    problems_again,
    readiness,
    status_lines,
)

from support.statuses import (
    NOW,
    change,
    command,
    down,
    exited,
    many,
    reload,
    service,
    status,
    task,
    worker,
)


def text(shown: dict[str, Any], width: int, *, wrap: bool = True) -> str:
    page = Page(width, width if wrap else None, NOW)
    return "".join(f"{line.plain}\n" for line in status_lines(shown, page))


def golden(expected: str) -> str:
    return textwrap.dedent(expected).lstrip("\n")


def test_many_services_are_a_row_each_with_problems_first() -> None:
    assert text(status(*many(12)), 80) == golden("""
        servd 0.1.0  6 of 11 ready  pid 7  up 3 min
        1 failed, 1 backoff, 1 with errors, 2 waiting, 1 task running
        /srv/servd.toml  generation 3, loaded 2026-03-03 08:30 (1 d ago)

        SERVICE     STATE      READY   REQ/S  5XX%  P99 MS   CPU%    MEM  RESTARTS
        migrate     failed      task  2 min ago
            worker 0 exited with status 3
            | no route to db.internal
        ranker      backoff      0/1       0     -       -      -      -         4
            crash loop: worker 0 cannot import ranker: ModuleNotFoundError: No module
            named 'torch'
        pay         ready        1/1     120    75    20.2    1.5    35M         0
            900 of 1200 requests lately were answered with 5xx
        gateway     waiting      0/2       0     -       -      -      -         0
            waiting for search (waiting); cause: ranker (backoff)
        search      waiting      0/1       0     -       -      -      -         0
            waiting for ranker (backoff)
        backfill    running     task  for 2 min 55 s
        consumer-1  ready        1/1       -     -       -    1.5    35M         0
        consumer-2  ready        1/1       -     -       -    1.5    35M         0
        redis       ready        1/1       -     -       -    1.5    35M         0
        triton      ready        1/1       -     -       -    1.5    35M         0
        prepare     completed   task  2 min ago
        off         stopped      0/0       0     -       -      -      -         0
        """)


def test_a_wide_terminal_shows_addresses_too() -> None:
    shown = text(status(*many(11)), 120).splitlines()
    assert shown[4].split()[-5:] == ["MS", "CPU%", "MEM", "RESTARTS", "ADDRESS"]
    (triton,) = [line for line in shown if line.startswith("triton")]
    assert triton.endswith("  0  http://127.0.0.1:8000 (program)")
    (redis,) = [line for line in shown if line.startswith("redis")]
    assert redis.endswith("  0  127.0.0.1:6379 (program)")


def test_a_narrow_terminal_wraps_whole_reasons() -> None:
    shown = text(status(*many(11)), 30)
    assert all(len(line) <= 30 for line in shown.splitlines())
    assert "…" not in shown
    assert (
        golden("""
        SERVICE     STATE      READY
        migrate     failed      task
            worker 0 exited with
            status 3
            | no route to db.internal
        ranker      backoff      0/1
            crash loop: worker 0
            cannot import ranker:
            ModuleNotFoundError: No
            module named 'torch'
        """)
        in shown
    )


def test_programs_get_each_reason_in_one_line() -> None:
    shown = text(status(*many(11)), 40, wrap=False).splitlines()
    why = "crash loop: worker 0 cannot import ranker: ModuleNotFoundError: No module named 'torch'"
    assert f"    {why}" in shown


def test_few_services_have_their_details_in_the_order_of_the_start() -> None:
    services = (
        service("api", 2, listen=["http://0.0.0.0:8000"], rps=50.0, rps_4xx=2.0, error_rate=0.0,
                p99_ms=12.5, requests=900, by_hand={"workers": 2, "file": 1},
                coming={"generation": 4, "ready": 1, "desired": 2},
                draining=[{"generation": 2, "pids": [5], "waiting_for": "1 websocket"}]),
        command("redis", binds_itself=["127.0.0.1:6379"]),
        down("mail", "failed", error="worker 0 exited with status 1",
             last_exit=exited("exited with status 1", "one", "two", "three", "four")),
    )  # fmt: skip
    assert text(status(*services), 80) == golden("""
        servd 0.1.0  2 of 3 ready  pid 7  up 3 min
        1 failed
        /srv/servd.toml  generation 3, loaded 2026-03-03 08:30 (1 d ago)

        SERVICE  STATE      READY     FOR   REQ/S  5XX%  P99 MS   CPU%    MEM  RESTARTS
        api      ready        2/2   2 min      50     0    12.5      3    70M         0
          http://0.0.0.0:8000  generation 1  pid 100 101
          answers: 2 4xx/s
          2 workers (set manually; the config says 1)
          generation 4 is starting: 1 of 2 workers ready
          generation 2 drains: 1 websocket
        redis    ready        1/1   2 min       -     -       -    1.5    35M         0
          127.0.0.1:6379 (bound by the program, not in the config)  generation 1
          pid 100
        mail     failed       0/1   2 min       0     -       -      -      -         0
          internal
          worker 0 exited with status 1
          | two
          | three
          | four
        """)


def test_a_name_without_room_stands_in_a_line_of_its_own() -> None:
    name = "a-service-with-a-name-that-is-about-as-long-as-they-may-become"
    shown = text(status(service(name), service("b")), 80).splitlines()
    at = shown.index(name)
    assert shown[at + 1].split()[:2] == ["ready", "1/1"]
    assert shown[at + 1].index("ready") == shown[at + 3].index("ready")


def test_a_service_is_shown_with_all_its_workers() -> None:
    one = service(
        "web", state="degraded", listen=["https://0.0.0.0:443"], depends_on=["db", "cache"],
        processes=[worker(0, requests=12, in_flight=1, rps=1.5)],
        public_url="https://example.org", error="worker 1 was killed by SIGKILL", restarts=3,
        certificate_expires_at="2026-05-04T12:00:00Z", last_exit=exited("was killed", "a", "b"),
    )  # fmt: skip
    known = {"web": one, "db": service("db")}
    lines = detail_lines(one, known, Page(100, 100, NOW))
    assert "".join(f"{line.plain}\n" for line in lines) == golden("""
        web  degraded for 2 min 55 s
          worker 1 was killed by SIGKILL
          | a
          | b
          https://0.0.0.0:443
          public URL https://example.org
          depends on db (ready), cache
          restarts: 3
          certificate expires 2026-05-04 12:00 (in 61 d)
          WORKER      PID  STATE          UP   REQ/S  5XX%  P99 MS   CPU%    MEM  IN FLIGHT  REQUESTS  GEN
               0      100  ready       3 min     1.5     -       -    1.5    35M          1        12    1
        """)  # noqa: E501


@pytest.mark.parametrize(
    ("state", "services", "expected"),
    [
        ("running", [service("a"), task("b", "completed")], "running"),
        ("running", [service("a"), down("off", "stopped", desired=0)], "running"),
        ("running", [service("a"), down("b", "waiting")], "1 of 2 ready"),
        ("running", [service("a"), task("b", "failed")], "1 of 2 ready"),
        ("reloading", [service("a"), down("b", "starting")], "reloading, 1 of 2 ready"),
        ("stopping", [service("a")], "stopping"),
    ],
)
def test_running_means_that_all_is_ready(
    state: str, services: list[dict[str, Any]], expected: str
) -> None:
    assert readiness(status(*services, state=state)) == expected


def head(**more: Any) -> str:
    """The lines between the configuration and the services."""
    return "\n".join(text(status(service("a"), **more), 80).split("\n\n")[0].splitlines()[2:])


def test_a_reload_without_changes_does_not_hide_the_one_before() -> None:
    failed = reload("invalid", "2026-03-04T11:50:00Z", details=["servd.toml:4:1: no", "x:1:1: oh"])
    same = reload("unchanged", "2026-03-04T11:59:00Z")
    assert (
        head(last_reload=failed)
        == golden("""
        last reload: invalid 11:50:00 (10 min ago)
          servd.toml:4:1: no
          x:1:1: oh
          The previous configuration is still running.
        """).rstrip()
    )
    assert head(last_reload=failed, unchanged_at=same["at"]).splitlines()[-2:] == [
        "  x:1:1: oh",
        "  since then: reload without changes 11:59:00 (1 min ago)",
    ]
    both = status(service("a"), last_reload=failed | {"error": "no"}, unchanged_at=same["at"])
    assert last_seen(both, NOW) == "last reload: invalid 10 min ago, since then unchanged  no"
    assert head(last_reload=same) == "last reload: unchanged 11:59:00 (1 min ago)"


def test_a_reload_shows_what_it_changed() -> None:
    few = reload(
        "applied", "2026-03-04T11:59:00Z", change("~", "web", "roll"), change("+", "api", "add"),
        restart_needed=["daemon.gpus"],
    )  # fmt: skip
    assert (
        head(last_reload=few)
        == golden("""
        last reload: applied 11:59:00 (1 min ago)  ~ web roll, + api add
          daemon.gpus takes effect when servd is restarted
        """).rstrip()
    )
    changes = [change("~", f"s{number}", "roll") for number in range(9)]
    lots = reload("applied", "2026-03-04T11:59:00Z", *changes, change("+", "new", "add"))
    assert head(last_reload=lots).endswith("  ~ 9 roll, + 1 add")


def test_a_manual_action_is_shown_beside_the_reload() -> None:
    act = reload("applied", "2026-03-04T11:59:30Z", why="scale of web")
    assert head(last_act={**act, "outcome": "unchanged"}) == ""
    assert head(last_act=act) == "last manual action: applied 11:59:30 (30 s ago)  scale of web"


def test_a_long_table_ends_with_the_names_of_what_it_began_with() -> None:
    some = [each for each in many(30) if each["name"] != "migrate"]
    lines = [line.plain for line in problems_again(some, Page(200, None, NOW))]
    found = "ranker (backoff), pay (errors), gateway (waiting), search (waiting)"
    assert lines == ["", f"4 with problems, shown first: {found}"]
    assert not list(problems_again([service("a")], Page(80, 80, NOW)))
