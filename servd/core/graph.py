"""Graphs that map each name to the names that it depends on. Every order is deterministic."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from graphlib import TopologicalSorter

Graph = Mapping[str, Collection[str]]


def levels(graph: Graph) -> list[list[str]]:
    """Returns sorted groups of names, each depending on earlier ones. Raises `CycleError`."""
    sorter: TopologicalSorter[str] = TopologicalSorter(graph)
    sorter.prepare()
    result: list[list[str]] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        result.append(ready)
        sorter.done(*ready)
    return result


def order(graph: Graph) -> list[str]:
    """Returns all names, dependencies before their dependents."""
    return [name for level in levels(graph) for name in level]


def cycles(graph: Graph) -> list[list[str]]:
    """Returns a path for each group of names in a cycle, from its smallest: `["a", "b", "a"]`."""
    return [_path_around(group, graph) for group in _cyclic_groups(graph)]


def dependents(graph: Graph) -> dict[str, list[str]]:
    """Returns the reversed graph: each name with its dependents, sorted."""
    result: dict[str, list[str]] = {name: [] for name in graph}
    for name in sorted(graph):
        for dependency in graph[name]:
            result.setdefault(dependency, []).append(name)
    return result


def reached(graph: Graph, name: str) -> list[str]:
    """Returns `name` and all names that it reaches, directly or not; nearest first."""
    found = [name]
    for each in found:
        found += [other for other in graph.get(each, ()) if other not in found]
    return found


def _cyclic_groups(graph: Graph) -> list[list[str]]:
    """Returns the strongly connected groups with a cycle (Tarjan's algorithm, iterative)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    on_stack: set[str] = set()
    stack: list[str] = []
    found: list[list[str]] = []

    def neighbours(name: str) -> Iterator[str]:
        return iter(sorted(n for n in graph.get(name, ()) if n in graph))

    for root in sorted(graph):
        if root in index:
            continue
        work: list[tuple[str, Iterator[str]]] = []

        def enter(name: str, work: list[tuple[str, Iterator[str]]] = work) -> None:
            index[name] = low[name] = len(index)
            stack.append(name)
            on_stack.add(name)
            work.append((name, neighbours(name)))

        enter(root)
        while work:
            name, rest = work[-1]
            following = next(rest, None)
            if following is not None:
                if following not in index:
                    enter(following)
                elif following in on_stack:
                    low[name] = min(low[name], index[following])
                continue
            work.pop()
            if work:
                low[work[-1][0]] = min(low[work[-1][0]], low[name])
            if low[name] == index[name]:
                group: list[str] = []
                while not group or group[-1] != name:
                    group.append(stack.pop())
                    on_stack.discard(group[-1])
                if len(group) > 1 or name in graph[name]:
                    found.append(sorted(group))
    return sorted(found)


def _path_around(group: list[str], graph: Graph) -> list[str]:
    """Returns the shortest path from the smallest name of a group back to itself."""
    start = group[0]
    ways, seen = [[start]], set[str]()
    for way in ways:  # it grows; shorter ways come first
        for neighbour in sorted({*graph[way[-1]]} & {*group} - seen):
            if neighbour == start:
                return [*way, start]
            seen.add(neighbour)
            ways.append([*way, neighbour])
    raise AssertionError(f"no cycle through {start}")  # every group has one
