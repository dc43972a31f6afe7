"""What there is to say about one service."""

from __future__ import annotations

from datetime import timedelta

import pytest

from servd.cli.render import service_facts as facts

from support.statuses import NOW, command, down, exited, many, service, status, task


def by_name(*services: facts.ServiceRow) -> dict[str, facts.ServiceRow]:
    return {each["name"]: each for each in services}


def test_problems_come_first_and_names_are_in_the_order_of_their_numbers() -> None:
    names = [each["name"] for each in sorted(many(22), key=facts.by_problem)]
    assert names[:6] == ["migrate", "ranker", "pay", "gateway", "search", "backfill"]
    assert names[6:9] == ["consumer-1", "consumer-2", "consumer-3"]
    assert names[-2:] == ["prepare", "off"]


def test_a_waiting_service_names_what_it_waits_for_and_the_cause() -> None:
    a = down("a", "waiting", depends_on=["b", "well"])
    b = down("b", "waiting", depends_on=["c"])
    c = down("c", "failed")
    known = by_name(a, b, c, service("well"))
    assert facts.blocked_by(a, known) == "waiting for b (waiting); cause: c (failed)"
    assert facts.blocked_by(b, known) == "waiting for c (failed)"
    assert facts.blocked_by(c, known) == ""
    lost = down("lost", "waiting", depends_on=["removed"])
    assert facts.blocked_by(lost, by_name(lost)) == "waiting for removed (not running)"


def test_services_that_wait_for_each_other_have_no_cause() -> None:
    ring = [
        down(name, "waiting", depends_on=[other]) for name, other in ("ab", "bc", "ca")
    ]  # fmt: skip
    assert facts.blocked_by(ring[0], by_name(*ring)) == "waiting for b (waiting)"


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (service("a", listen=["http://h:1", "unix:/s"]), "http://h:1, unix:/s"),
        (service("a"), "internal"),
        (command("a"), "no address"),
        (command("a", listen=["http://h:1"], bound_by="program"),
         "http://h:1 (bound by the program)"),
        (command("a", binds_itself=["h:6379"]), "h:6379 (bound by the program, not in the config)"),
        (task("a", "completed"), "task"),
    ],
)  # fmt: skip
def test_an_address_says_who_binds_it(shown: facts.ServiceRow, text: str) -> None:
    assert facts.addresses(shown) == text


def test_a_certificate_is_worth_a_note_shortly_before_it_expires() -> None:
    def notes(days: int) -> list[str]:
        ends = (NOW + timedelta(days=days)).isoformat()
        return [note.text for note in facts.notes(service("a", certificate_expires_at=ends), NOW)]

    assert notes(20) == []
    assert notes(3) == ["certificate expires 2026-03-07 12:00 (in 3 d)"]
    assert notes(-2) == ["certificate expired 2026-03-02 12:00 (2 d ago)"]


def test_the_last_output_is_shown_where_the_reason_lacks_it() -> None:
    lines = ("Traceback", "", "KeyError: 'A'")
    says = down(
        "a", "backoff", error="cannot import a: KeyError: 'A'", last_exit=exited("", *lines)
    )
    assert facts.last_output(says, 1) == []
    assert facts.last_output(says) == ["Traceback", "KeyError: 'A'"]
    silent = down("a", "backoff", error="worker 0 exited with status 1", last_exit=exited("", "oh"))
    assert facts.last_output(silent, 1) == ["oh"]
    assert facts.last_output(service("a", last_exit=exited("", "old")), 1) == []


def test_a_daemon_of_an_older_version_can_be_shown() -> None:
    old = status(service("a"))
    del old["unchanged_at"]
    for field in ("since", "bound_by", "error_rate", "binds_itself"):
        del old["services"][0][field]
    del old["services"][0]["processes"][0]["error_rate"]
    new = facts.completed(old)
    assert new["services"][0]["since"] == new["started_at"]
    assert facts.addresses(new["services"][0]) == "internal"
    assert new["services"][0]["processes"][0]["error_rate"] is None
