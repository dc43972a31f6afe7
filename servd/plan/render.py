"""Renders a plan's graph: text, Mermaid, DOT, JSON."""

from __future__ import annotations

import dataclasses
from typing import Any

from servd.core import graph
from servd.plan.autoscale import scaling_of
from servd.plan.model import Plan, ServicePlan


def summary(service: ServicePlan) -> str:
    """Returns what a service is: where it listens and its number of workers, for example."""
    if service.external is not None:
        return f"external, {service.external.shown}"
    if service.is_task:
        return "task, once" if service.definition.run == "once" else "task"
    workers = f"{service.workers} worker{'' if service.workers == 1 else 's'}"
    if (scale := scaling_of(service)) is not None:
        workers = f"{service.workers} to {scale.max} workers"
    where = ", ".join(service.urls) or ("internal" if service.app else "command")
    return f"{where}, {workers}"


def as_text(plan: Plan) -> str:
    """Returns a tree: services without dependents at the left, their needs below."""
    if not plan.services:
        return "no services"
    wanted_by = graph.dependents(plan.graph)
    lines: list[str] = []
    shown: set[str] = set()

    def draw(name: str, lead: str, follow: str) -> None:
        service = plan.service(name)
        again = name in shown and service.depends_on
        lines.append(f"{lead}{name}  ({'shown above' if again else summary(service)})")
        if again:
            return
        shown.add(name)
        needs = sorted(service.depends_on, key=lambda d: d.service)
        for index, dependency in enumerate(needs):
            last = index == len(needs) - 1
            branch, bar = ("└── ", "    ") if last else ("├── ", "│   ")
            draw(dependency.service, follow + branch, follow + bar)

    for service in sorted(plan.services, key=lambda s: s.name):
        if not wanted_by[service.name]:
            draw(service.name, "", "")
    return "\n".join(lines)


def as_mermaid(plan: Plan) -> str:
    """Returns a Mermaid flowchart; arrows point at dependencies."""
    lines = ["flowchart LR"]
    for service in plan.services:
        label = f"{service.name}<br/>{summary(service)}".replace('"', "#quot;")
        lines.append(f'    {_identifier(service.name)}["{label}"]')
    for service in plan.services:
        for dependency in service.depends_on:
            label = "" if dependency.condition == "ready" else f"|{dependency.condition}|"
            target = _identifier(dependency.service)
            lines.append(f"    {_identifier(service.name)} -->{label} {target}")
    return "\n".join(lines)


def as_dot(plan: Plan) -> str:
    """Returns a graph for Graphviz; arrows point at dependencies."""
    lines = ["digraph servd {", "    rankdir=LR;", "    node [shape=box];"]
    for service in plan.services:
        label = f"{service.name}\\n{summary(service)}".replace('"', '\\"')
        lines.append(f'    "{service.name}" [label="{label}"];')
    for service in plan.services:
        for dependency in service.depends_on:
            label = "" if dependency.condition == "ready" else f' [label="{dependency.condition}"]'
            lines.append(f'    "{service.name}" -> "{dependency.service}"{label};')
    return "\n".join([*lines, "}"])


def as_json(plan: Plan) -> dict[str, Any]:
    """Returns the graph as JSON values."""
    return {
        "services": [
            {
                "name": service.name,
                "kind": service.kind,
                "listen": list(service.urls),
                "workers": service.workers,
                "depends_on": [dataclasses.asdict(d) for d in service.depends_on],
            }
            for service in plan.services
        ],
        "levels": graph.levels(plan.graph),
    }


def _identifier(name: str) -> str:
    """Mermaid forbids hyphens next to arrows; service names have no capitals, so H is free."""
    return "s_" + name.replace("-", "H")
