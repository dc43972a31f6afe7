"""Config and host facts become a plan, without any process."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from servd.config.bento.components import Expansion
from servd.config.bento.declared import Declared, DeclaredGraph
from servd.config.layers import Layers, of_file
from servd.config.model import Config
from servd.config.service import BENTO_STARTUP_SECONDS
from servd.config.tree import empty
from servd.config.validation_context import ValidationContext
from servd.daemon.reload.planner import ports_of
from servd.plan.build import build, internal_path
from servd.plan.host import Account, Host
from servd.plan.model import Plan, ServicePlan

HOST = Host(
    cpus=(0, 1, 4),
    usable_cpus=3,
    environ={"PATH": "/bin", "LANG": "C", "SECRET": "s", "HTTP_PROXY": "p", "LC_ALL": "x"},
    accounts={
        "www": Account("www", 33, 33, (33, 50), "/var/www"),
        "db": Account("db", 34, 34, (34,), "/var/db"),
    },
    groups={"shared": 77},
    env_files={"/shared.env": {"A": "1", "B": "1", "C": "1"}, "/own.env": {"C": "3", "D": "3"}},
    ports={"model": 4567},
    python="/py",
)


def plan_of(services: dict[str, Any], defaults: dict[str, Any] | None = None) -> Plan:
    config = Config.model_validate({"services": services, "defaults": defaults or {}})
    return build(config, HOST, "/run/x")


def only(service: dict[str, Any], defaults: dict[str, Any] | None = None) -> ServicePlan:
    return plan_of({"web": service}, defaults).service("web")


def test_dependencies_come_first_and_ties_are_broken_by_name() -> None:
    plan = plan_of(
        {
            "a": {"app": "m:a", "depends_on": ("z",)},
            "c": {"app": "m:a"},
            "b": {"app": "m:a"},
            "z": {"app": "m:a"},
        }
    )
    assert [s.name for s in plan.services] == ["b", "c", "z", "a"]


@given(st.integers(2, 9).flatmap(lambda n: st.tuples(st.just(n), st.permutations(range(n)))))
def test_the_plan_does_not_depend_on_the_order_of_the_file(given_: tuple[int, list[int]]) -> None:
    count, order = given_
    services: dict[str, Any] = {
        f"s{i}": {"app": "m:a", "depends_on": tuple(f"s{j}" for j in range(i) if (i + j) % 2)}
        for i in range(count)
    }
    shuffled = {f"s{i}": services[f"s{i}"] for i in order}
    assert plan_of(services) == plan_of(shuffled)


def test_an_app_that_nobody_reaches_from_outside_gets_an_internal_socket() -> None:
    service = only({"app": "m:a"})
    (socket,) = service.sockets
    assert socket.internal
    assert socket.address.path == "/run/x/s/web.sock"
    assert socket.mode == 0o600


def test_an_app_that_others_need_has_both_its_address_and_an_internal_socket() -> None:
    plan = plan_of(
        {
            "web": {"app": "m:a", "listen": ":80", "depends_on": ("api",)},
            "api": {"app": "m:a", "listen": "127.0.0.1:81"},
        }
    )
    assert [str(s.address) for s in plan.service("web").sockets] == [":80"]
    assert [s.internal for s in plan.service("api").sockets] == [False, True]
    dependencies = json.loads(plan.service("web").environment["SERVD_DEPENDENCIES"])
    assert dependencies == {"api": {"url": "http://api", "uds": "/run/x/s/api.sock"}}


def test_an_internal_socket_is_open_to_its_dependents_and_nobody_else() -> None:
    def socket_of(*users: dict[str, str]) -> tuple[int, int | None, int | None]:
        services: dict[str, Any] = {"api": {"app": "m:a"}}
        for index, user in enumerate(users):
            services[f"d{index}"] = {"app": "m:a", "depends_on": ("api",), **user}
        (socket,) = plan_of(services).service("api").sockets
        return socket.mode, socket.owner, socket.group

    assert socket_of({"user": "www"}) == (0o600, 33, None)
    assert socket_of({"user": "www"}, {"user": "www"}) == (0o600, 33, None)
    shared = [{"user": "www", "group": "shared"}, {"user": "db", "group": "shared"}]
    assert socket_of(*shared) == (0o660, None, 77)
    assert socket_of({"user": "www"}, {"user": "db"}) == (0o666, None, None)


def test_a_long_name_is_hashed_so_that_the_socket_can_be_bound() -> None:
    path = internal_path("/tmp/" + "r" * 60, "n" * 60)
    assert len(path) <= 107
    assert path == internal_path("/tmp/" + "r" * 60, "n" * 60)
    assert path != internal_path("/tmp/" + "r" * 60, "n" * 59)


def test_the_environment_is_layered_in_the_documented_order() -> None:
    service = only(
        {"app": "m:a", "env_file": "/own.env", "env": {"D": "4"}, "env_passthrough": ("SEC*",)},
        {"env_file": "/shared.env", "env": {"B": "2", "C": "2"}},
    )
    environment = service.environment
    assert [environment[name] for name in "ABCD"] == ["1", "2", "3", "4"]
    assert environment["SECRET"] == "s"
    assert environment["LC_ALL"] == "x"
    assert environment["HTTP_PROXY"] == "p"
    assert environment["SERVD_SERVICE"] == "web"


def test_only_the_documented_base_is_taken_over() -> None:
    environment = only({"app": "m:a"}).environment
    assert set(environment) == {
        "PATH", "LANG", "LC_ALL", "HTTP_PROXY", "SERVD_SERVICE", "SERVD_DEPENDENCIES",
        "PROMETHEUS_MULTIPROC_DIR",
    }  # fmt: skip


def test_the_environment_never_shows_in_a_repr() -> None:
    assert "hidden" not in repr(only({"app": "m:a", "env": {"PASSWORD": "hidden"}}))


def test_another_user_brings_its_own_home() -> None:
    service = only({"app": "m:a", "user": "www"})
    assert service.environment["HOME"] == "/var/www"
    assert service.environment["USER"] == "www"
    assert service.identity.account is not None
    assert service.identity.gid == 33
    assert only({"app": "m:a", "user": "www", "group": "shared"}).identity.gid == 77


def test_auto_is_the_usable_cpus_and_spread_one_worker_a_cpu() -> None:
    service = only({"app": "m:a", "workers": "auto", "cpu_affinity": "spread"})
    assert service.workers == 3
    assert service.identity.affinity == ((0,), (1,), (4,))
    assert only({"app": "m:a", "cpu_affinity": (1, 4)}).identity.affinity == ((1, 4),)


def test_placeholders_are_replaced_and_other_braces_left() -> None:
    service = only(
        {
            "command": ("run", "{host}:{port}", "{service}", '{"a": 1}', "{nothing}", "{worker}"),
            "listen": "127.0.0.1:99",
        }
    )
    assert service.command == (
        "run", "127.0.0.1:99", "web", '{"a": 1}', "{nothing}", "{worker}",
    )  # fmt: skip
    assert service.sockets == ()


def test_who_binds_follows_from_placeholders_and_activation() -> None:
    def bound(**service: Any) -> list[str]:
        return [str(s.address) for s in only(service).sockets]

    assert bound(command=("x",), listen=":80") == [":80"]
    assert bound(command=("x", "{fd}"), listen=":80") == [":80"]
    assert bound(command=("x", "{port}"), listen=":80") == []
    assert bound(command=("x",), listen=":80", activation="self") == []
    assert bound(command=("x",)) == []
    assert bound(command=("x",), activation="fd") == ["unix:/run/x/s/web.sock"]
    assert only({"command": ("x", "{fd}"), "listen": ":80"}).command == ("x", "3")


def test_a_command_without_an_address_gets_a_free_port_or_its_socket_path() -> None:
    model = plan_of({"model": {"command": ("x", "{port}")}}).service("model")
    assert model.command == ("x", "4567")
    uds = only({"command": ("x", "{uds}")})
    assert uds.command == ("x", "/run/x/s/web.sock")


def test_a_command_that_binds_any_port_is_told_one_that_servd_knows() -> None:
    listen = ("unix:/x.sock", "localhost:0")
    model = plan_of({"model": {"command": ("x", "{port}"), "listen": listen}}).service("model")
    assert model.command == ("x", "4567")
    assert [str(address) for address in model.addresses] == ["unix:/x.sock", "localhost:4567"]
    assert ports_of(Plan((model,))) == {"model": 4567}
    assert model.ready.address is not None


def test_what_makes_a_command_ready() -> None:
    def mode(**service: Any) -> str:
        return only(service).ready.mode

    assert mode(command=("x",)) == "started"
    assert mode(command=("x", "{port}"), listen=":80") == "port"
    assert mode(command=("x", "{port}"), listen=":80", health={"path": "/up"}) == "http"
    assert mode(command=("x",), ready="notify") == "notify"
    assert mode(command=("x",), ready="port") == "started"
    assert mode(app="m:a") == "notify"


def test_a_bentoml_service_may_start_for_as_long_as_it_takes_unless_a_limit_is_set() -> None:
    assert only({"app": "m:a"}).startup == 60
    bento = {"bento": "service:Model"}
    assert only(bento).startup == BENTO_STARTUP_SECONDS
    assert only({**bento, "timeouts": {"drain": "3s"}}).startup == BENTO_STARTUP_SECONDS
    assert only({**bento, "timeouts": {"startup": "3s"}}).startup == 3
    config = {"services": {"web": bento}, "defaults": {"timeouts": {"startup": "4s"}}}
    loaded = Config.model_validate(of_file(config))
    assert build(loaded, HOST, "/run/x").service("web").startup == 4


def test_a_component_has_the_start_limit_of_its_service() -> None:
    graph = DeclaredGraph("Gateway", {n: Declared(n) for n in ("Gateway", "Model")})

    def startup(timeouts: dict[str, str]) -> list[float]:
        file = {"services": {"gw": {"bento": "service:Gateway", "timeouts": timeouts}}}
        config = Config.model_validate(file)
        checked = ValidationContext(config, Layers(empty("<environment>"), empty("servd.toml")))
        services = Expansion(checked, {"gw": graph}).config.services
        return [services[name].startup_seconds for name in ("gw", "gw.model")]

    assert startup({}) == [BENTO_STARTUP_SECONDS] * 2
    assert startup({"startup": "5s"}) == [5, 5]
