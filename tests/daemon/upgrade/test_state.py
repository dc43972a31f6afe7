"""The document that one daemon leaves to the next."""

from __future__ import annotations

import json
from typing import Any

import pytest

from servd.core.errors import ServdError
from servd.daemon.upgrade.state import OverrideRecord, UpgradeState
from servd.plan.overrides import Override

from support.config_texts import loaded_text
from support.two_daemons import upgrade_state


def document(**changes: Any) -> bytes:
    return json.dumps({**json.loads(upgrade_state().to_json()), **changes}).encode()


def test_what_is_written_is_what_is_read() -> None:
    text = upgrade_state().to_json()
    assert UpgradeState.from_json(text) == upgrade_state()
    assert b"\n" not in text


def test_every_descriptor_that_is_named_is_inherited() -> None:
    assert sorted(upgrade_state().descriptors) == [3, 4, 5, 6, 8, 9]


def test_another_version_may_say_more() -> None:
    services = {"web": {"serves": True, "new": 1}}
    state = UpgradeState.from_json(document(new={"a": 1}, services=services))
    assert state.pid == 7
    assert state.services["web"].serves


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (b"", ""),
        (b"{", ""),
        (b"[]", ""),
        (b"null", ""),
        (b"{}", "pid"),
        (document(pid="seven"), "pid"),
        (document(sockets=[{"key": "x"}]), "sockets.0.fd"),
        (document(services={"web": {}}), "services.web.serves"),
        (document(by_hand={"web": {"workers": 1}}), "by_hand.web.stopped"),
    ],
)
def test_what_another_version_says_otherwise_is_told_with_its_place(
    text: bytes, where: str
) -> None:
    with pytest.raises(ServdError, match="cannot read the state") as failure:
        UpgradeState.from_json(text)
    assert f"({where}: " in str(failure.value)
    assert "restart it" in str(failure.value)


FILE = """
[services.two]
command = ["sleep", "9"]
workers = 2
[services.auto]
app = "main:app"
workers = "auto"
"""


@pytest.mark.parametrize(
    ("name", "record", "expected"),
    [
        ("two", OverrideRecord(5, False, 2), Override(5)),
        ("two", OverrideRecord(None, True, 2), Override(stopped=True)),
        ("two", OverrideRecord(5, True, 2), Override(5, stopped=True)),
        ("two", OverrideRecord(5, False, 3), None),
        ("two", OverrideRecord(5, False, "auto"), None),
        ("auto", OverrideRecord(5, False, "auto"), Override(5)),
        ("auto", OverrideRecord(5, False, 2), None),
        ("gone", OverrideRecord(5, False, 2), None),
    ],
)
def test_an_override_lasts_where_the_file_still_says_what_it_replaced(
    name: str, record: OverrideRecord, expected: Override | None
) -> None:
    state = UpgradeState.from_json(upgrade_state(by_hand={name: record}).to_json())
    assert state.overrides(loaded_text(FILE).config).get(name) == expected
