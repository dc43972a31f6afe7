"""How workers are asked about their health, as the plan has it."""

from __future__ import annotations

from typing import Any

from servd.config.http_file import RequestFile
from servd.config.service import Service
from servd.core.address import Address
from servd.plan.host import Host
from servd.plan.model import HealthPlan
from servd.plan.probes import external_health, health_plan, ready_plan, warmup_plan

PING = RequestFile("POST", "/v1/predict", (("Accept", "*/*"),), b"{}")
HOST = Host(cpus=(0,), usable_cpus=1, requests={"/ping.http": PING})
NONE = HealthPlan(None, "", "", 1.0, 1.0, 1)


def service(**given: Any) -> Service:
    return Service.model_validate(given)


def asked(**given: Any) -> HealthPlan:
    found = health_plan("a", service(app="m:a", health=given), (), (), HOST)
    assert found is not None
    return found


def test_the_request_is_that_of_the_file_or_of_the_keys() -> None:
    assert asked(path="/up").request is None
    assert asked(path="/up", expect="204").expect == "204"
    assert asked(request="/ping.http").request == PING
    assert asked(path="/é", method="POST", body="ü").request == RequestFile(
        "POST", "/%C3%A9", (), "ü".encode()
    )
    assert asked(method="HEAD").request == RequestFile("HEAD", "/healthz")


def test_a_warm_up_of_the_defaults_leaves_out_programs_without_an_address_of_their_own() -> None:
    warmup = {"request": "/ping.http"}
    address = (Address("tcp", host="127.0.0.1", port=8000),)
    shared = service(command=("run", "--fd", "{fd}"), warmup=warmup)
    assert warmup_plan(shared, address, HOST) is None
    own = service(command=("run", "{port}"), warmup=warmup)
    found = warmup_plan(own, address, HOST)
    assert found is not None
    assert found.address == address[0]


def test_only_an_app_is_trusted() -> None:
    assert asked(busy="trust").trusts
    assert not asked(busy="probe").trusts


def test_a_service_elsewhere_is_asked_the_same_way() -> None:
    given = service(external="http://h:80", health={"request": "/ping.http", "expect": "2xx"})
    found = external_health(given, NONE, HOST)
    assert (found.request, found.expect, found.host) == (PING, "2xx", "h:80")


def test_a_program_is_ready_when_the_request_is_answered() -> None:
    given = service(command="x {port}", health={"request": "/ping.http"}, listen=":80")
    ready = ready_plan("a", given, tuple(given.listen), (), HOST)
    assert (ready.mode, ready.health is not None and ready.health.request) == ("http", PING)
