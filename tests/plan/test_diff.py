"""Two plans become ordered changes, and nothing else does."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servd.core import graph
from servd.plan.change import Change
from servd.plan.diff import diff, patched
from servd.plan.model import Plan
from servd.plan.render_changes import change_rows, rows_as_text

from support.plans import HOST, plan_of


def change_of(before: dict[str, Any], after: dict[str, Any]) -> Change:
    """The one change between two definitions of an app."""
    one = {"app": "m:a", "listen": ":80"}
    (change,) = diff(plan_of({"web": {**one, **before}}), plan_of({"web": {**one, **after}}))
    return change


TLS = {"certfile": "c1", "keyfile": "k1"}


@pytest.mark.parametrize(
    ("before", "after", "kind", "keys"),
    [
        ({}, {"workers": 3}, "scale", ["workers"]),
        ({}, {"workers": 0}, "scale", ["workers"]),
        ({}, {"backlog": 99}, "live", ["backlog"]),
        ({}, {"restart": {"policy": "never"}}, "live", ["restart.policy"]),
        ({}, {"log": {"level": "debug"}}, "live", ["log.level"]),
        ({}, {"rollout": {"strategy": "one-by-one"}}, "live", ["rollout.strategy"]),
        ({}, {"public_url": "https://x"}, "live", ["public_url"]),
        ({}, {"timeouts": {"startup": 5}}, "live", ["timeouts.startup"]),
        ({}, {"socket": {"mode": "0660"}}, "live", ["socket.mode"]),
        ({}, {"timeouts": {"drain": 5}}, "roll", ["timeouts.drain"]),
        ({}, {"env": {"A": "1"}}, "roll", ["env.A"]),
        ({}, {"app": "m:b"}, "roll", ["app"]),
        ({}, {"log": {"access": False}}, "roll", ["log.access"]),
        ({}, {"workers": 3, "threads": 9}, "roll", ["workers", "threads"]),
        ({}, {"workers": 3, "backlog": 9}, "scale", ["backlog", "workers"]),
        ({}, {"listen": ":81"}, "rebind", ["listen"]),
        ({}, {"listen": ":81", "env": {"A": "1"}}, "rebind", ["env.A", "listen"]),
        ({}, {"tls": TLS}, "switch", ["tls.certfile", "tls.keyfile"]),
        ({"tls": TLS}, {"tls": False}, "switch", ["tls.certfile", "tls.keyfile"]),
        ({}, {"tls": TLS, "listen": ":81"}, "rebind",
         ["listen", "tls.certfile", "tls.keyfile"]),
        ({"tls": TLS}, {"tls": {**TLS, "rotate": False}}, "live", ["tls.rotate"]),
        ({"tls": TLS}, {"tls": {"certfile": "c2", "keyfile": "k2"}}, "live", None),
        ({"tls": TLS}, {"tls": {**TLS, "min_version": "TLSv1.3"}}, "roll", ["tls.min_version"]),
        ({"tls": TLS}, {"tls": {**TLS, "ca_certs": "ca"}}, "roll", None),
    ],
)  # fmt: skip
def test_the_kind_follows_from_the_keys_that_differ(
    before: dict[str, Any], after: dict[str, Any], kind: str, keys: list[str] | None
) -> None:
    change = change_of(before, after)
    assert change.kind == kind
    if keys is not None:
        assert sorted(key.key for key in change.keys) == sorted(keys)


def test_a_key_that_is_new_or_gone_has_a_sign_and_a_table_is_shown_key_by_key() -> None:
    one = {"env": {"OLD": "1", "BOTH": "1"}, "limits": {"concurrency": 9}}
    two = {
        "env": {"NEW": "2", "BOTH": "2"},
        "health": {"path": "/up", "interval": "1s"},
        "timeouts": {"drain": "5s"},
        "user": "www",
    }
    shown = rows_as_text(change_rows((change_of(one, two),)))
    assert shown.splitlines() == [
        "~ web  roll",
        '    ~ timeouts.drain      "30s" -> "5s"',
        "    - limits.concurrency  9",
        '    + health.path         "/up"',
        '    + health.interval     "1s"',
        '    + user                "www"',
        '    ~ env.BOTH            "1" -> "2"',
        '    + env.NEW             "2"',
        '    - env.OLD             "1"',
        "",
        "0 to add, 1 to change, 0 to remove",
    ]


def test_client_certificates_switch_when_tightened_and_roll_when_loosened() -> None:
    def tls(auth: str) -> dict[str, Any]:
        return {"tls": {**TLS, "ca_certs": "ca", "client_auth": auth}}

    assert change_of(tls("none"), tls("required")).kind == "switch"
    assert change_of(tls("optional"), tls("required")).kind == "switch"
    assert change_of(tls("required"), tls("optional")).kind == "roll"


def test_a_command_that_binds_itself_is_interrupted() -> None:
    def plan(*arguments: str, **more: Any) -> Plan:
        return plan_of({"model": {"command": ("run", "{port}", *arguments), **more}})

    (change,) = diff(plan(), plan("--fast"))
    assert change.kind == "interrupt"
    assert "interrupts" in change.notes[0]
    (change,) = diff(plan(), plan(restart={"policy": "never"}))
    assert change.kind == "live"


def test_content_of_files_is_compared_though_no_key_differs() -> None:
    from dataclasses import replace

    service = {"web": {"app": "m:a", "listen": ":80", "tls": {**TLS, "ca_certs": "ca"}}}
    fresh = replace(HOST, pem_files={**HOST.pem_files, "c1": "newer", "k1": "newer"})
    (change,) = diff(plan_of(service), plan_of(service, fresh))
    assert (change.kind, [key.key for key in change.keys]) == ("live", ["tls.certfile"])
    other = replace(HOST, pem_files={**HOST.pem_files, "ca": "another"})
    (change,) = diff(plan_of(service), plan_of(service, other))
    assert (change.kind, [key.key for key in change.keys]) == ("roll", ["tls.ca_certs"])
    service = {"web": {"app": "m:a", "env_file": "/a.env"}}
    edited = replace(HOST, env_files={"/a.env": {"A": "other", "B": "hidden"}})
    (change,) = diff(plan_of(service), plan_of(service, edited))
    assert change.kind == "roll"
    assert change.keys[0].after == "changed values: A, B"


def test_secrets_are_masked_and_a_changed_one_still_shows() -> None:
    def plan(value: str) -> Plan:
        secrets = frozenset({("services", "web", "env", "DSN")})
        return plan_of(
            {"web": {"app": "m:a", "env": {"DSN": value, "API_TOKEN": value}}}, HOST, secrets
        )

    changes = diff(plan("old-secret"), plan("new-secret"))
    shown = rows_as_text(change_rows(changes))
    assert "secret" not in shown
    assert "~ env.DSN        ******** -> changed value" in shown


def test_the_text_is_coloured_for_terminals_only() -> None:
    rows = change_rows(diff(Plan(), plan_of({"web": {"app": "m:a"}})))
    assert rows_as_text(rows, colour=True).startswith(
        "\x1b[32m+ web  add  internal, 1 worker\x1b[0m"
    )
    assert "\x1b" not in rows_as_text(rows)


def test_a_dependent_on_a_moved_dependency_rolls() -> None:
    def plan(port: int) -> Plan:
        return plan_of(
            {
                "api": {"command": ("run",), "listen": f"127.0.0.1:{port}"},
                "web": {"app": "m:a", "depends_on": ("api",)},
            }
        )

    assert [(c.service, c.kind) for c in diff(plan(81), plan(82))] == [
        ("api", "rebind"), ("web", "roll"),
    ]  # fmt: skip


def test_a_dependency_that_rolls_leaves_its_dependents_alone() -> None:
    def plan(threads: int) -> Plan:
        return plan_of(
            {
                "api": {"app": "m:a", "threads": threads},
                "web": {"app": "m:a", "depends_on": ("api",)},
            }
        )

    assert [c.service for c in diff(plan(1), plan(2))] == ["api"]


def test_a_task_runs_again_before_a_dependent_rolls_unless_it_runs_once() -> None:
    def plan(threads: int, run: str) -> Plan:
        return plan_of(
            {
                "migrate": {"command": ("run",), "kind": "task", "run": run},
                "web": {
                    "app": "m:a",
                    "threads": threads,
                    "depends_on": ({"service": "migrate", "condition": "completed"},),
                },
            }
        )

    first, second = diff(plan(1, "always"), plan(2, "always"))
    assert (first.service, first.kind, first.why) == ("migrate", "roll", "runs before web")
    assert "cannot be undone" in first.notes[0]
    assert second.service == "web"
    assert [c.service for c in diff(plan(1, "once"), plan(2, "once"))] == ["web"]


def test_rolling_everything_names_why() -> None:
    plan = plan_of({"a": {"app": "m:a"}, "b": {"app": "m:a", "workers": 0}})
    (change,) = diff(plan, plan, roll={"a", "b"})
    assert (change.service, change.kind, change.why) == ("a", "roll", "requested")


def test_rolling_takes_a_smaller_change_along() -> None:
    def plan(backlog: int) -> Plan:
        return plan_of({"web": {"app": "m:a", "backlog": backlog}})

    (change,) = diff(plan(1), plan(2), roll={"web"})
    assert (change.kind, change.why) == ("roll", "requested")
    assert [key.key for key in change.keys] == ["backlog"]


def test_a_task_that_a_task_needs_runs_again_too() -> None:
    task = {"command": ("run",), "kind": "task"}
    plan = plan_of(
        {
            "m0": task,
            "m": {**task, "depends_on": ("m0",)},
            "web": {"app": "m:a", "depends_on": ("m",)},
        }
    )
    assert [c.service for c in diff(plan, plan, roll={"web"})] == ["m0", "m", "web"]


def test_the_size_of_a_batch_follows_from_the_rollout() -> None:
    def batch(**rollout: Any) -> int:
        return change_of({"workers": 8}, {"workers": 8, "threads": 2, "rollout": rollout}).batch

    assert batch() == 8
    assert batch(strategy="one-by-one") == 1
    assert batch(max_surge="25%") == 2
    assert batch(max_surge=3) == 3
    assert batch(max_surge="1%") == 1


# properties

NAMES = ("a", "b", "c", "d")


@st.composite
def services(draw: st.DrawFn) -> dict[str, Any]:
    """A valid set of services: names depend on earlier ones only, so there is no cycle."""
    found: dict[str, Any] = {}
    order = draw(st.permutations(NAMES))
    for index, name in enumerate(order):
        if draw(st.integers(0, 3)) == 0:
            continue
        earlier = [other for other in order[:index] if other in found]
        needs = draw(st.lists(st.sampled_from(earlier), unique=True)) if earlier else []
        service: dict[str, Any] = {
            "depends_on": tuple(sorted(needs)),  # their order has no meaning
            "workers": draw(st.integers(0, 3)),
            "threads": draw(st.integers(1, 3)),
            "backlog": draw(st.integers(1, 3)),
            "env": draw(st.dictionaries(st.sampled_from(("A", "B")), st.sampled_from("12"))),
        }
        if draw(st.booleans()):
            service["app"] = draw(st.sampled_from(("m:a", "m:b")))
            port = draw(st.integers(0, 2))
            if port:
                service["listen"] = f"127.0.0.1:{index * 10 + port}"
            if draw(st.booleans()):
                number = draw(st.sampled_from("12"))
                service["tls"] = {"certfile": f"c{number}", "keyfile": f"k{number}"}
        else:
            service["command"] = ("run", draw(st.sampled_from(("x", "{worker}"))))
        found[name] = service
    return found


def restored(plan: Plan, changes: tuple[Change, ...]) -> Plan:
    return patched(plan, changes)


@settings(max_examples=300, deadline=None)
@given(services(), services())
def test_applying_the_difference_leads_to_the_other_plan(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    before, after = plan_of(one), plan_of(other)
    assert restored(before, diff(before, after)) == after


@settings(max_examples=100, deadline=None)
@given(services())
def test_a_plan_does_not_differ_from_itself(one: dict[str, Any]) -> None:
    assert diff(plan_of(one), plan_of(one)) == ()


@settings(max_examples=300, deadline=None)
@given(services(), services())
def test_the_order_respects_both_graphs(one: dict[str, Any], other: dict[str, Any]) -> None:
    before, after = plan_of(one), plan_of(other)
    changes = diff(before, after)
    place = {change.service: index for index, change in enumerate(changes)}
    ending = {change.service for change in changes if change.kind == "remove" or change.halts}
    for name, needs in after.graph.items():
        for need in needs:
            if {name, need} <= place.keys() - ending:
                assert place[need] < place[name]
    for name, dependents in graph.dependents(before.graph).items():
        for dependent in dependents:
            if name in ending and dependent in place:
                assert place[dependent] < place[name]


@settings(max_examples=100, deadline=None)
@given(services(), services())
def test_every_change_says_something_to_a_person(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    for change in diff(plan_of(one), plan_of(other)):
        assert change.keys or change.why
        assert change.sign in "+~-"
