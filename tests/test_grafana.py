"""The dashboard and the alerts that ship ask for metrics that a daemon has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from support.harness import Servd
from support.pages import DOCS, blocks

DASHBOARD = json.loads((DOCS / "grafana" / "servd.json").read_text())
ALERTS = next(
    each.text
    for each in blocks((DOCS / "how-to" / "monitoring.md").read_text())
    if each.title == "servd-alerts.yml"
)
ENDINGS = {"histogram": ("_bucket", "_sum", "_count")}
APP = """
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})
"""
WEB = '[services.web]\napp = "main:app"\nlisten = "127.0.0.1:0"\n'


def values(node: Any, *keys: str) -> Iterator[Any]:
    """The values of these keys, however deep they are."""
    if isinstance(node, dict):
        yield from (value for key, value in node.items() if key in keys)
    for inner in node.values() if isinstance(node, dict) else node:
        if isinstance(inner, dict | list):
            yield from values(inner, *keys)


def names(text: str) -> set[str]:
    return set(re.findall(r"\bservd_\w+", text))


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of all samples that a daemon may show."""
    daemons = Servd(tmp_path_factory.mktemp("grafana"))
    try:
        text = daemons(WEB, main_py=APP).ready().ask("GET", "/metrics").text
    finally:
        daemons.close()
    kinds = re.findall(r"^# TYPE (servd_\w+) (\w+)$", text, re.MULTILINE)
    return {f"{name}{ending}" for name, kind in kinds for ending in ENDINGS.get(kind, ("",))}


def test_the_dashboard_asks_for_metrics_that_a_daemon_has(exposed: set[str]) -> None:
    queries = [*values(DASHBOARD, "expr"), *(str(each) for each in values(DASHBOARD, "query"))]
    asked = names("\n".join(queries))
    assert len(asked) > 12
    assert asked <= exposed


def test_the_alerts_ask_for_metrics_that_a_daemon_has(exposed: set[str]) -> None:
    assert len(names(ALERTS)) > 4
    assert names(ALERTS) <= exposed


def test_the_dashboard_can_be_imported_with_any_prometheus() -> None:
    (source,) = DASHBOARD["__inputs"]
    assert (source["type"], source["pluginId"]) == ("datasource", "prometheus")
    assert {each["uid"] for each in values(DASHBOARD, "datasource")} == {f"${{{source['name']}}}"}


def test_the_dashboard_is_filtered_by_its_variables() -> None:
    variables = [each["name"] for each in DASHBOARD["templating"]["list"]]
    assert variables == ["instance", "service"]
    for expression in values(DASHBOARD, "expr"):
        for selector in re.findall(r"servd_\w+\{(.*?)\}", expression):
            assert 'instance=~"$instance"' in selector
        assert "servd_" not in re.sub(r"servd_\w+\{", "", expression), expression


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
