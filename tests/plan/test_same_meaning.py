"""Edits that mean the same change nothing; those that mean another thing say what."""

from __future__ import annotations

from typing import Any

import pytest

from servd.config.model import Config
from servd.plan.build import build
from servd.plan.diff import diff
from servd.plan.host import Host
from servd.plan.model import Plan

HOST = Host(
    cpus=(0, 1),
    usable_cpus=2,
    environ={"PATH": "/bin", "LANG": "C", "EXTRA": "e"},
    accounts={},
    groups={},
    env_files={
        "/a.env": {"A": "1"}, "/b.env": {"A": "1"}, "/c.env": {"A": "2"}, "/none.env": {},
    },
    ports={},
    python="/py",
)  # fmt: skip
OTHERS = {"x": {"command": ("x",)}, "y": {"command": ("y",)}}


def plan_of(web: dict[str, Any], defaults: dict[str, Any]) -> Plan:
    services = {"web": {"app": "m:a", **web}, **OTHERS}
    config = Config.model_validate({"services": services, "defaults": defaults})
    return build(config, HOST, "/run/x", frozenset())


def keys(before: Any, after: Any) -> dict[str, tuple[str, str]]:
    """What differs in `web` between two pairs of its table and `[defaults]`."""
    changes = diff(plan_of(*before), plan_of(*after))
    return {
        key.key: (key.before, key.after)
        for change in changes
        if change.service == "web"
        for key in change.keys
    }


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (({"env": {"A": "1"}}, {}), ({}, {"env": {"A": "1"}})),
        (({"env": {"A": "1"}}, {"env": {"A": "2"}}), ({"env": {"A": "1"}}, {})),
        (({"env": {"A": 1}}, {}), ({"env": {"A": "1"}}, {})),
        (({"env_file": "/a.env"}, {}), ({"env_file": "/b.env"}, {})),
        (({"env_file": "/a.env"}, {}), ({"env": {"A": "1"}}, {})),
        (({"env_file": "/a.env"}, {}), ({"env_file": {"path": "/a.env", "required": False}}, {})),
        (({}, {}), ({"env_file": "/none.env"}, {})),
        (({"env_file": ("/a.env", "/none.env")}, {}), ({"env_file": ("/none.env", "/a.env")}, {})),
        (({}, {}), ({"env_passthrough": ("NOT_THERE", "LANG")}, {})),
        (({"env_passthrough": ("EXTRA",)}, {}), ({"env": {"EXTRA": "e"}}, {})),
        (({"depends_on": ("x", "y")}, {}), ({"depends_on": ("y", "x")}, {})),
        (
            ({"depends_on": ("x",)}, {}),
            ({"depends_on": ({"service": "x", "condition": "ready"},)}, {}),
        ),
        (({"workers": 2}, {}), ({"workers": "auto"}, {})),
        (({"workers": "auto"}, {}), ({"workers": 2}, {})),
        (({"workers": 1}, {}), ({}, {})),
        (({"timeouts": {"drain": "1m"}}, {}), ({"timeouts": {"drain": 60}}, {})),
        (({"limits": False}, {}), ({}, {})),
    ],
)
def test_the_same_meaning_is_no_change(before: Any, after: Any) -> None:
    assert keys(before, after) == {}


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (({}, {"env": {"OLD": "1"}}), ({}, {"env": {"OLD": "2"}}), {"env.OLD": ('"1"', '"2"')}),
        (({"env": {"A": "1"}}, {}), ({}, {}), {"env.A": ('"1"', "")}),
        (({}, {}), ({}, {"env": {"A": "1"}}), {"env.A": ("", '"1"')}),
        (
            ({}, {"env": {"API_TOKEN": "1"}}),
            ({}, {"env": {"API_TOKEN": "2"}}),
            {"env.API_TOKEN": ("********", "********")},
        ),
        (
            ({"env_file": "/a.env"}, {}),
            ({"env_file": "/c.env"}, {}),
            {"env_file": ("", "changed values: A")},
        ),
        (
            ({"env_file": "/a.env"}, {}),
            ({"env_file": "/a.env", "env": {"A": "9", "B": "3"}}, {}),
            {"env_file": ("", "changed values: A"), "env.B": ("", '"3"')},
        ),
        (
            ({"depends_on": ("x",)}, {}),
            ({"depends_on": ("y", {"service": "x", "condition": "started"})}, {}),
            {"depends_on": ('["x"]', '["y", {"service": "x", "condition": "started"}]')},
        ),
        (({"workers": 2}, {}), ({"workers": 3}, {}), {"workers": ("2", "3")}),
        (({"workers": 3}, {}), ({"workers": "auto"}, {}), {"workers": ("3", '"auto"')}),
        (({}, {}), ({"env_passthrough": ("EXTRA",)}, {}), {"env": ("", "changed values: EXTRA")}),
    ],
)
def test_another_meaning_is_shown_before_and_after(
    before: Any, after: Any, said: dict[str, tuple[str, str]]
) -> None:
    assert keys(before, after) == said
