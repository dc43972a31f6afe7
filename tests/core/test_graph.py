"""Order and cycles, for any graph."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from servd.core import graph

NAMES = st.sampled_from([f"n{number}" for number in range(12)])


@st.composite
def acyclic(draw: st.DrawFn) -> dict[str, list[str]]:
    names = draw(st.lists(NAMES, unique=True))
    return {
        name: draw(st.lists(st.sampled_from(names[:index]), unique=True)) if index else []
        for index, name in enumerate(names)
    }


@st.composite
def any_graph(draw: st.DrawFn) -> dict[str, list[str]]:
    names = draw(st.lists(NAMES, unique=True, min_size=1))
    return {name: draw(st.lists(st.sampled_from(names), unique=True, max_size=4)) for name in names}


@given(acyclic())
def test_dependencies_precede_their_dependents(needs: dict[str, list[str]]) -> None:
    order = graph.order(needs)
    assert sorted(order) == sorted(needs)
    for name, dependencies in needs.items():
        assert all(order.index(other) < order.index(name) for other in dependencies)
    assert graph.cycles(needs) == []


@given(any_graph())
def test_a_cycle_that_is_named_is_one_and_every_knot_is_named(needs: dict[str, list[str]]) -> None:
    found = graph.cycles(needs)
    for path in found:
        assert path[0] == path[-1] == min(path)
        assert all(after in needs[before] for before, after in itertools.pairwise(path))
        assert len(set(path)) == len(path) - 1
    broken = {name: list(others) for name, others in needs.items()}
    for path in found:
        broken[path[0]] = []
    reaches_itself = {name for name in needs if _reaches(needs, name, name)}
    on_knots = {name for path in found for name in reaches_itself if _reaches(needs, name, path[0])}
    assert reaches_itself <= on_knots | {path[0] for path in found}
    assert bool(found) == bool(reaches_itself)


def _reaches(needs: dict[str, list[str]], start: str, goal: str) -> bool:
    seen: set[str] = set()
    waiting = list(needs[start])
    while waiting:
        name = waiting.pop()
        if name == goal:
            return True
        if name not in seen:
            seen.add(name)
            waiting += needs[name]
    return False


@given(acyclic())
def test_levels_hold_what_can_start_together(needs: dict[str, list[str]]) -> None:
    done: set[str] = set()
    for level in graph.levels(needs):
        assert level == sorted(level)
        assert all(set(needs[name]) <= done for name in level)
        done |= set(level)


@given(any_graph())
def test_dependents_are_dependencies_the_other_way_round(needs: dict[str, list[str]]) -> None:
    other_way = graph.dependents(needs)
    pairs = {(name, other) for name, others in needs.items() for other in others}
    assert {(name, other) for other, names in other_way.items() for name in names} == pairs
