"""Addresses that programs bind without saying so, in plans."""

from __future__ import annotations

import dataclasses

import pytest

from servd.plan.diff import diff
from servd.plan.found import found_addresses, too_many_workers, with_found
from servd.plan.model import FoundAddress, Plan, ServicePlan

from support.config_texts import plan_text

CHOSEN = range(32768, 61000)
TEXT = '[services.web]\ncommand = ["echo", "--at", "40001"]\nenv = {{ P = "40002" }}\n{more}'


def web(more: str = "") -> Plan:
    return plan_text(TEXT.format(more=more))


def found(plan: Plan, *items: FoundAddress) -> Plan:
    service = dataclasses.replace(plan.service("web"), found=items)
    return dataclasses.replace(plan, services=(service,))


FIXED = FoundAddress("0.0.0.0:80", fixed=True)
CHANCE = FoundAddress("0.0.0.0:45000", fixed=False)


@pytest.mark.parametrize(
    ("address", "fixed"),
    [
        ("127.0.0.1:80", True),
        ("[::]:32767", True),
        ("127.0.0.1:40000", False),  # the system may have chosen it
        ("127.0.0.1:40001", True),  # the command names it
        ("127.0.0.1:40002", True),  # the environment does
        ("127.0.0.1:4000", True),
        ("127.0.0.1:50000", True),  # an earlier process had it
        ("unix:/run/x.sock", True),
    ],
)
def test_what_a_program_would_bind_again_is_fixed(address: str, *, fixed: bool) -> None:
    plan = web().service("web")
    again = {"127.0.0.1:50000"}
    expected = (FoundAddress(address, fixed=fixed),)
    assert found_addresses([address], plan, CHOSEN, "/tmp", again) == expected


def test_sockets_in_the_temporary_folder_are_a_programs_own_business() -> None:
    plan = web().service("web")
    assert found_addresses(["unix:/tmp/pymp-1/listener"], plan, CHOSEN, "/tmp") == ()
    named = dataclasses.replace(plan, command=("echo", "/tmp/x.sock"))
    assert found_addresses(["unix:/tmp/x.sock"], named, CHOSEN, "/tmp") != ()


def test_what_was_found_makes_no_difference_but_interrupts() -> None:
    running = found(web(), FIXED)
    assert diff(running, web()) == ()
    (change,) = diff(running, with_found(web(), running), roll=["web"])
    assert change.kind == "interrupt"
    (change,) = diff(running, web('umask = "027"'))
    assert change.kind == "interrupt"
    (change,) = diff(web(), web(), roll=["web"])
    assert change.kind == "roll"


@pytest.mark.parametrize(("item", "strategy"), [(FIXED, True), (CHANCE, False)])
def test_where_servd_binds_too_connections_wait(item: FoundAddress, *, strategy: bool) -> None:
    plan = web('listen = "127.0.0.1:8000"')
    running = found(plan, item)
    (change,) = diff(running, with_found(plan, running), roll=["web"])
    assert change.kind == "roll"
    assert change.plan.never_overlaps is strategy
    assert not change.plan.stands_alone


def test_another_program_is_not_taken_for_the_same() -> None:
    other = TEXT.format(more="").replace("echo", "true")
    after = with_found(plan_text(other), found(web(), FIXED)).service("web")
    assert after.found == ()


def test_a_second_worker_is_refused_unless_it_ran_already() -> None:
    def refused(item: FoundAddress, before: str, after: str) -> list[str]:
        running = found(web(before), item)
        return [name for name, _ in too_many_workers(with_found(web(after), running), running)]

    two = "workers = 2"
    assert refused(FIXED, "", two) == ["web"]
    assert refused(FIXED, "workers = 0", two) == ["web"]
    assert refused(FIXED, two, two) == []
    assert refused(FIXED, two, 'workers = 2\numask = "027"') == []
    assert refused(FIXED, two, "workers = 3") == ["web"]
    assert refused(CHANCE, "", two) == []


def test_a_file_that_the_command_names_may_have_the_port() -> None:
    plan = web().service("web")
    texts = ["serve(('', 45000))"]
    (item,) = found_addresses(["0.0.0.0:45000"], plan, CHOSEN, "/tmp", (), texts)
    assert item.fixed


def test_a_plan_is_the_same_whatever_was_found() -> None:
    service: ServicePlan = web().service("web")
    assert dataclasses.replace(service, found=(FIXED,)) == service
