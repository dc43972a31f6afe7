"""The graph of the page, in a real browser."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from support.apps import PLAIN, web
from support.browser import GRAPH, IN_A_BROWSER, shot, shown
from support.harness import Servd

pytestmark = IN_A_BROWSER

NEEDS = {
    "a": ("b", "d", "f"), "b": ("c",), "c": ("d", "e"), "d": ("f",), "e": ("f",), "f": (),
    "g": ("c", "f"), "h": ("f", "d"), "alone": (), "alone-too": (),
}  # fmt: skip

CROSSINGS = """() => {
    const boxes = [...document.querySelectorAll("#graph [data-node]")].map(node => {
        const { e: x, f: y } = node.transform.baseVal.consolidate().matrix;
        const { width, height } = node.querySelector("rect").getBBox();
        return { name: node.dataset.node, x, y, right: x + width, bottom: y + height };
    });
    const found = [];
    for (const edge of document.querySelectorAll("#graph [data-edge]"))
        for (let at = 0; at <= edge.getTotalLength(); at += 2) {
            const { x, y } = edge.getPointAtLength(at);
            for (const box of boxes)
                if (x > box.x + 1 && x < box.right - 1 && y > box.y + 1 && y < box.bottom - 1)
                    found.push(`${edge.dataset.edge} in ${box.name}`);
        }
    return [...new Set(found)];
}"""
"""Names edges that run through a box."""


def config(needs: dict[str, tuple[str, ...]]) -> str:
    return "\n".join(
        f'[services.{name}]\ncommand = ["sleep", "1000"]\ndepends_on = {list(of)}'.replace("'", '"')
        for name, of in needs.items()
    )


def test_no_edge_runs_through_a_box(servd: Servd, page: Page) -> None:
    daemon = servd(config(NEEDS)).ready()
    with shown(page, daemon) as url:
        page.goto(url)
        page.get_by_role("tab", name="Graph").click()
        for width in (1200, 400):  # side by side, and from top to bottom or scrolled
            page.set_viewport_size({"width": width, "height": 900})
            expect(page.locator("[data-node]")).to_have_count(len(NEEDS))
            edges = page.locator("[data-edge]").evaluate_all("all => all.map(e => e.dataset.edge)")
            assert sorted(edges) == sorted(f"{a} {b}" for a, of in NEEDS.items() for b in of)
            assert page.evaluate(CROSSINGS) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        expect(page.locator(".caption")).to_have_text("Services without dependencies")
        expect(page.locator(".legend")).to_contain_text("depends on")
        shot(page, "page-graph-boxes")


def test_the_layout_is_loaded_when_the_graph_is_opened(servd: Servd, page: Page) -> None:
    daemon = servd(GRAPH, main_py=PLAIN).ready()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.rpartition("/")[2]))
    with shown(page, daemon) as url:
        page.goto(url)
        expect(page.locator("[data-service=web] .state")).to_have_text("ready")
        assert "dagre.min.js" not in asked
        page.get_by_role("tab", name="Graph").click()
        expect(page.locator("[data-node=web] .sub")).to_contain_text("ready 2/2")
        assert asked.count("dagre.min.js") == 1
        edges = page.locator("[data-edge]").evaluate_all("all => all.map(e => e.dataset.edge)")
        assert sorted(edges) == ["web ranker", "web tokens"]
        page.locator("[data-node=ranker]").hover()
        expect(page.locator(".edge.lit")).to_have_attribute("data-edge", "web ranker")
        page.reload()
        expect(page.locator("[data-node=web]")).to_have_class("node ready")  # it is remembered
        page.locator("[data-node=tokens]").click()
        details = page.locator("[data-service=tokens] .details")
        expect(details).to_contain_text("internal")
        expect(details.locator("tbody tr")).to_have_count(1)


def test_a_failed_service_is_named_in_the_graph(servd: Servd, page: Page) -> None:
    fails = '[services.broken]\napp = "broken:app"\nrestart.give_up_after = 1\n'
    daemon = servd(fails + web(1), main_py=PLAIN, broken_py="raise RuntimeError('no model')")
    with shown(page, daemon.ready()) as url:
        page.goto(url)
        page.get_by_role("tab", name="Graph").click()
        expect(page.locator("[data-node=broken]")).to_have_class("node failed")
        expect(page.locator("[data-node=broken] .sub")).to_have_text("failed 0/1")
