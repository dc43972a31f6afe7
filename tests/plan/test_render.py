"""The graph as people and programs read it."""

from __future__ import annotations

from servd.config.model import Config
from servd.plan.build import build
from servd.plan.host import Host
from servd.plan.render import as_dot, as_json, as_mermaid, as_text

PLAN = build(
    Config.model_validate(
        {
            "services": {
                "web": {"app": "m:a", "listen": ":80", "workers": 2, "depends_on": ("a-b", "db")},
                "a-b": {
                    "app": "m:a",
                    "depends_on": ({"service": "db", "condition": "started"},),
                },
                "db": {"command": ("x",)},
            }
        }
    ),
    Host(cpus=(0,), usable_cpus=1),
    "/run/x",
)


def test_text_is_a_tree_with_repeated_parts_named_once() -> None:
    assert as_text(PLAN) == (
        "web  (http://0.0.0.0:80, 2 workers)\n"
        "├── a-b  (internal, 1 worker)\n"
        "│   └── db  (command, 1 worker)\n"
        "└── db  (command, 1 worker)"
    )


def test_a_task_has_no_workers_to_count() -> None:
    services = {
        "migrate": {"command": ("x",), "kind": "task"},
        "seed": {"command": ("x",), "kind": "task", "run": "once"},
    }
    plan = build(Config.model_validate({"services": services}), Host((0,), 1), "/run/x")
    assert as_text(plan) == "migrate  (task)\nseed  (task, once)"


def test_mermaid_draws_arrows_to_what_is_needed() -> None:
    assert as_mermaid(PLAN).splitlines() == [
        "flowchart LR",
        '    s_db["db<br/>command, 1 worker"]',
        '    s_aHb["a-b<br/>internal, 1 worker"]',
        '    s_web["web<br/>http://0.0.0.0:80, 2 workers"]',
        "    s_aHb -->|started| s_db",
        "    s_web --> s_aHb",
        "    s_web --> s_db",
    ]


def test_dot_draws_the_same() -> None:
    dot = as_dot(PLAN)
    assert dot.startswith("digraph servd {")
    assert '"web" -> "a-b";' in dot
    assert '"a-b" -> "db" [label="started"];' in dot


def test_json_has_services_and_levels() -> None:
    shown = as_json(PLAN)
    assert shown["levels"] == [["db"], ["a-b"], ["web"]]
    assert shown["services"][2]["depends_on"] == [
        {"service": "a-b", "condition": "ready"},
        {"service": "db", "condition": "ready"},
    ]
