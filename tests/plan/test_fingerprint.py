"""Fingerprints: the same for what is equal, another for what differs."""

from __future__ import annotations

import dataclasses
from typing import Any

from servd.plan.fingerprint import fingerprint
from servd.plan.model import Plan, ServicePlan

from support.plans import plan_of

KEY = b"k" * 32


def service(**keys: object) -> ServicePlan:
    return plan_of({"web": {"app": "m:a", "env": {"A": "1", "B": "2"}, **keys}}).service("web")


def test_equal_values_have_the_same() -> None:
    one, two = service(), service(env={"B": "2", "A": "1"})
    assert one == two
    assert fingerprint(KEY, one) == fingerprint(KEY, two)
    other = dataclasses.replace(one, declared_env={"not": "compared"})
    assert fingerprint(KEY, one) == fingerprint(KEY, other)


def test_every_field_that_is_compared_counts() -> None:
    one = service()
    seen = {fingerprint(KEY, one)}
    for field in dataclasses.fields(one):
        if field.compare:
            other: Any = {field.name: "another"}
            seen.add(fingerprint(KEY, dataclasses.replace(one, **other)))
    assert len(seen) == 1 + sum(field.compare for field in dataclasses.fields(one))


def test_values_deep_inside_count_and_so_does_the_key() -> None:
    one, two = service(), service(env={"A": "1", "B": "3"})
    assert fingerprint(KEY, Plan((one,))) != fingerprint(KEY, Plan((two,)))
    assert fingerprint(KEY, service(threads=3)) != fingerprint(KEY, one)
    assert fingerprint(KEY, one) != fingerprint(b"other", one)
    assert fingerprint(KEY, "a", "b") != fingerprint(KEY, "a, b")
