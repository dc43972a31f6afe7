"""The page, in a real browser: headless Chromium."""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from support.apps import PLAIN, web
from support.dashboard import dashboard
from support.harness import DEADLINE, Servd, ServdProcess, free_port, wait_until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium"),
]
SHOTS = os.environ.get("SERVD_SCREENSHOTS", "")
"""A folder that pictures of the page are written to."""

OPTIONS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip

GRAPH = """
    [services.web]
    app = "main:app"
    listen = "127.0.0.1:0"
    workers = 2
    depends_on = ["tokens", "ranker"]
    log.access = false
    env = { V = "1" }
    [services.tokens]
    app = "main:app"
    env = { V = "1" }
    [services.ranker]
    app = "main:app"
    env = { V = "1" }
"""
LOOPS = """
    [services.broken]
    app = "broken:app"
    restart = { backoff = "50ms", backoff_max = "200ms" }
    timeouts = { startup = "5s" }
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=list(OPTIONS))
        yield found
        found.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of a session of its own; a mistake of its scripts fails the test."""
    context = browser.new_context(viewport={"width": 1200, "height": 900}, reduced_motion="reduce")
    expect.set_options(timeout=DEADLINE * 1000 / 2)
    found = context.new_page()
    wrong: list[str] = []
    foreign: list[str] = []
    found.on("pageerror", lambda error: wrong.append(str(error)))
    found.on(
        "console",
        lambda m: wrong.append(m.text) if m.type == "error" and not _expected(m.text) else None,
    )
    found.on(
        "request", lambda r: foreign.append(r.url) if "//127.0.0.1:" not in r.url[:20] else None
    )
    yield found
    context.close()
    assert wrong == []
    assert [url for url in foreign if not url.startswith("data:")] == []


def _expected(text: str) -> bool:
    """What the browser says of answers that tell the page something is wrong."""
    return "status of" in text


@contextmanager
def shown(page: Page, daemon: ServdProcess) -> Iterator[str]:
    """The address for a page, which leaves it before it ends."""
    with dashboard(daemon) as url:
        yield url
        page.goto("about:blank")


@contextmanager
def load(daemon: ServdProcess) -> Iterator[None]:
    """Requests one after the other, until the end."""
    over = threading.Event()

    def ask() -> None:
        with httpx.Client() as client:
            while not over.wait(0.01):
                client.get(daemon.url("web"))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        over.set()
        asking.join()


def shot(page: Page, name: str, *, whole: bool = True) -> None:
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / f"{name}.png", full_page=whole)


def test_it_shows_the_graph_live_numbers_and_a_scale_by_button(servd: Servd, page: Page) -> None:
    daemon = servd(GRAPH, main_py=PLAIN).ready()
    with shown(page, daemon) as url, load(daemon):
        page.goto(url)
        for name, text in (("web", "ready 2/2"), ("tokens", "ready 1/1")):
            expect(page.locator(f"[data-node={name}] .sub")).to_contain_text(text)
            expect(page.locator(f"[data-node={name}]")).to_have_class("node ready")
        edges = page.locator("[data-edge]").evaluate_all("all => all.map(e => e.dataset.edge)")
        assert sorted(edges) == ["web ranker", "web tokens"]
        card = page.locator("[data-service=web]")
        expect(card.locator("dd").nth(1)).to_have_text(re.compile(r"^[1-9]"))  # requests a second
        expect(card.locator("dd").nth(3)).to_have_text(re.compile(r"\d"))  # p99
        expect(card.locator("canvas").first).to_have_attribute(
            "aria-label", re.compile(r"^[1-9].* requests per second")
        )
        drawn = "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(v => v)"
        assert card.locator("canvas").first.evaluate(drawn)
        card.get_by_role("button", name="Scale web").click()
        page.get_by_label("Workers", exact=False).last.fill("3")
        shot(page, "page-scale", whole=False)
        assert daemon.service("web")["workers"]["desired"] == 2, "it asks first"
        page.get_by_role("button", name="Scale", exact=True).click()
        expect(page.locator("#toast")).to_contain_text("~ web scale")
        expect(card.locator("dd").first).to_have_text("3/3")
        expect(card.locator(".notes")).to_contain_text("3 workers by hand, the file says 2")
        assert "3/3" in daemon.cli("status").stdout
        expect(page.locator("#last-act")).to_contain_text("scale of web")
        expect(page.locator("#lines")).to_contain_text("[web 2] worker ready")
        shot(page, "page")


def test_a_crash_loop_shows_as_such(servd: Servd, page: Page) -> None:
    daemon = servd(GRAPH + LOOPS, main_py=PLAIN, broken_py="raise RuntimeError('no model')")
    daemon.wait_for("crash loop")
    with shown(page, daemon) as url:
        page.goto(url)
        expect(page.locator("[data-node=broken]")).to_have_class("node failed")
        expect(page.locator("[data-node=broken] .sub")).to_contain_text("crash loop")
        card = page.locator("[data-service=broken]")
        expect(card.locator(".badge")).to_contain_text("crash loop")
        expect(card.locator(".notes")).to_contain_text("no model")
        expect(page.locator("#lines .error").first).to_contain_text("crash loop")
        shot(page, "page-crash-loop")


def test_a_reload_shows_what_it_would_do_first_and_why_it_failed(servd: Servd, page: Page) -> None:
    daemon = servd(web(1), main_py=PLAIN).ready()
    with shown(page, daemon) as url:
        page.goto(url)
        daemon.edit(web(2))
        page.get_by_role("button", name="Reload…").click()
        expect(page.locator("#dialog .diff")).to_contain_text('env.V~ "1" → "2"')
        shot(page, "page-reload", whole=False)
        page.get_by_role("button", name="Reload", exact=True).click()
        expect(page.locator("#toast")).to_contain_text("~ web roll")
        assert daemon.get("web").text == "2"
        daemon.edit(web(3).replace("main:app", "main:nosuch"))
        page.get_by_role("button", name="Reload…").click()
        page.get_by_role("button", name="Reload", exact=True).click()
        result = page.locator("#dialog-result")
        expect(result).to_contain_text("All changes were rolled back")
        expect(result).to_contain_text('main has no attribute "nosuch"')
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator("#last-reload .badge")).to_have_text("rolled back")
        assert daemon.get("web").text == "2"


def test_it_works_by_keyboard_alone(servd: Servd, page: Page) -> None:
    daemon = servd(GRAPH, main_py=PLAIN).ready()
    pids = daemon.pids("tokens")
    with shown(page, daemon) as url:
        page.goto(url)
        node = page.locator("[data-node=tokens]")
        expect(node).to_be_visible()
        for _ in range(20):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.dataset.node") == "tokens":
                break
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.dataset.service") == "tokens"
        page.keyboard.press("Tab")  # its first button
        assert page.evaluate("document.activeElement.ariaLabel") == "Restart tokens"
        page.keyboard.press("Enter")
        expect(page.locator("#dialog")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator("#dialog")).to_be_hidden()
        page.keyboard.press("Enter")
        page.locator("#dialog-go").focus()
        page.keyboard.press("Enter")
        expect(page.locator("#toast")).to_contain_text("~ tokens roll")
        assert daemon.pids("tokens") != pids
        page.keyboard.press("/")
        page.keyboard.type("rank")
        expect(page.locator("[data-service=web]")).to_be_hidden()
        expect(page.locator("[data-service=ranker]")).to_be_visible()


def test_it_fits_a_phone_and_the_dark(servd: Servd, page: Page) -> None:
    daemon = servd(GRAPH, main_py=PLAIN).ready()
    with shown(page, daemon) as url, load(daemon):
        page.set_viewport_size({"width": 360, "height": 740})
        page.emulate_media(color_scheme="dark")
        page.goto(url)
        card = page.locator("[data-service=web]")
        card.locator("summary").press("Enter")
        expect(card.locator("tbody tr")).to_have_count(2)
        expect(card.locator("dd").nth(1)).to_have_text(re.compile(r"^[1-9]"))
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        light = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert sum(map(int, re.findall(r"\d+", light)[:3])) < 150
        shot(page, "page-phone")


def test_logs_can_be_of_one_service_filtered_and_paused(servd: Servd, page: Page) -> None:
    talks = PLAIN.replace(
        "body = ", "print('asked for', scope['path'], flush=True)\n        body = "
    )
    daemon = servd(GRAPH, main_py=talks).ready()
    with shown(page, daemon) as url:
        page.goto(url)
        page.get_by_role("tab", name="Logs").click()
        daemon.get("web", "/one")
        expect(page.locator("#lines")).to_contain_text("asked for /one")
        page.get_by_label("Filter").fill("/two")
        expect(page.locator("#lines .line:visible")).to_have_count(0)
        daemon.get("web", "/two")
        expect(page.locator("#lines .line:visible")).to_have_count(1)
        page.get_by_label("Filter").fill("")
        page.get_by_label("Pause").check()
        daemon.get("web", "/three")
        wait_until(lambda: "asked for /three" in daemon.output, "it was logged")
        expect(page.locator("#lines")).not_to_contain_text("/three")
        page.get_by_label("Pause").uncheck()
        expect(page.locator("#lines")).to_contain_text("asked for /three")
        page.locator("#lines-service").select_option("tokens")
        expect(page.locator("#lines")).not_to_contain_text("asked for")
        expect(page.locator("#lines")).to_contain_text("[tokens 0] worker ready")


def test_it_goes_on_when_the_daemon_is_back(servd: Servd, page: Page) -> None:
    daemon = servd(web(1), main_py=PLAIN).ready()
    with shown(page, daemon) as url:
        page.goto(url)
        expect(page.locator("[data-service=web] .badge")).to_have_text("ready")
        daemon.stop()
        expect(page.locator("#notice")).to_contain_text("servd does not answer")
        again = servd.run(
            "--config", "servd.toml", environ={"SERVD_DAEMON__RUNTIME_DIR": str(daemon.runtime)}
        )
        wait_until(lambda: "servd ready" in again.output, "it runs again")
        expect(page.locator("#notice")).to_be_hidden()
        expect(page.locator("#about")).to_contain_text(f"pid {again.pid}")
        expect(page.locator("#lines")).to_contain_text("no longer kept")


def test_the_address_opens_the_page_once(servd: Servd, browser: Browser, page: Page) -> None:
    daemon = servd(web(1), main_py=PLAIN).ready()
    with shown(page, daemon) as url:
        page.goto(url)
        expect(page.locator("[data-service=web]")).to_be_visible()
        assert page.url == url.partition("#")[0], "the token is no longer in the address"
        page.reload()
        expect(page.locator("[data-service=web]")).to_be_visible()
        other = browser.new_context()
        thief = other.new_page()
        thief.goto(url)
        expect(thief.locator("#notice")).to_contain_text("run `servd dashboard`")
        assert thief.locator(".card").count() == 0
        other.close()


ATTACK = """async ([base, token]) => {
    const tries = [];
    for (const mode of ["cors", "no-cors"])
        for (const [method, route] of [
            ["GET", "/v1/status"], ["POST", "/v1/services/web/stop"], ["POST", "/v1/reload"],
            ["POST", "/v1/upgrade"]])
            for (const headers of [{}, {"Content-Type": "text/plain"},
                                   {"Authorization": "Bearer " + token}])
                tries.push([route, {method, mode, headers, credentials: "include",
                                    body: method === "POST" ? "{}" : undefined}]);
    const read = [];
    for (const [route, options] of tries)
        try {
            const answer = await fetch(base + route, options);
            read.push(answer.type === "opaque" ? "" : await answer.text());
        } catch (refused) { read.push(""); }
    return read;
}"""
"""What a page can try that knows the address, and even the token of the API."""

FORM = """base => {
    const frame = document.createElement("iframe");
    frame.name = "elsewhere";
    const form = document.createElement("form");
    Object.assign(form, {method: "POST", action: base + "/v1/services/web/stop",
                         target: "elsewhere", enctype: "text/plain"});
    document.body.append(frame, form);
    form.submit();
}"""


def test_a_page_of_somebody_else_reaches_nothing(servd: Servd, browser: Browser) -> None:
    """In a browser of this machine, where the real page is open beside it."""
    token = "correct horse battery staple"
    admin = f"http://127.0.0.1:{free_port()}"
    listen = admin.removeprefix("http://")
    config = f'[admin]\nlisten = "{listen}"\ntoken = "{token}"\n{web(1)}'
    daemon = servd(config, main_py=PLAIN).ready()
    shown_token = {"authorization": f"Bearer {token}"}
    context = browser.new_context()
    own, foreign = context.new_page(), context.new_page()
    with dashboard(daemon) as url:
        own.goto(url)
        expect(own.locator("[data-service=web]")).to_be_visible()
        foreign.goto(daemon.url("web"))  # another origin: its port differs
        for base in (admin, url.partition("/#")[0]):
            assert set(foreign.evaluate(ATTACK, [base, token])) == {""}, base
            with foreign.expect_response(f"{base}/v1/services/web/stop") as answer:
                foreign.evaluate(FORM, base)
            assert answer.value.status in (401, 403)
        own.goto("about:blank")
    context.close()
    status = httpx.get(f"{admin}/v1/status", headers=shown_token).json()
    assert (status["last_reload"], status["last_act"]) == (None, None)
    assert status["pid"] == daemon.pid
    assert [service["state"] for service in status["services"]] == ["ready"]
