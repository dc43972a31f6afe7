"""The page, in a real browser: headless Chromium."""

from __future__ import annotations

import re
from datetime import datetime
from zoneinfo import ZoneInfo

import httpx
from playwright.sync_api import Browser, Page, expect

from support.apps import PLAIN, web
from support.browser import GRAPH, IN_A_BROWSER, LOOPS, load, shot, shown
from support.dashboard import dashboard
from support.harness import Servd, ServdProcess, free_port, wait_until

pytestmark = IN_A_BROWSER

FAILING = PLAIN.replace('"status": 200', '"status": 500 if scope["path"] == "/fail" else 200')

DRAWN = "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(v => v)"


def names(page: Page) -> list[str]:
    """The services in the order of the table."""
    found: list[str] = page.locator("[data-service]").evaluate_all(
        "rows => rows.map(row => row.dataset.service)"
    )
    return found


def wait_for_history(daemon: ServdProcess) -> None:
    """Until the daemon has a sample with requests."""

    def has_requests() -> bool:
        services = daemon.ask("GET", "/v1/history").json()["services"]
        return any(services.get("web", {}).get("rps", ()))

    wait_until(has_requests, "a sample has requests")


def test_it_shows_live_numbers_and_a_scale_by_button(servd: Servd, page: Page) -> None:
    daemon = servd(GRAPH, main_py=PLAIN).ready()
    with shown(page, daemon) as url, load(daemon):
        page.goto(url)
        expect(page.locator("#state")).to_have_text("3 of 3 ready")
        expect(page.locator("#totals")).to_have_text("3 services, 4 workers ready")
        row = page.locator("[data-service=web]")
        expect(row.locator(".state")).to_have_text("ready")
        expect(row.locator(".ready-count")).to_have_text("2/2")
        expect(row.locator(".number.rps")).to_have_text(re.compile(r"^[1-9]"))
        expect(row.locator(".number.p99")).to_have_text(re.compile(r"\d ms$"))
        expect(row.locator(".number.errors")).to_have_text("0 %")
        row.get_by_role("button", name="Scale web").click()
        page.get_by_label("Workers", exact=False).last.fill("3")
        shot(page, "page-scale", whole=False)
        assert daemon.service("web")["workers"]["desired"] == 2, "it asks first"
        page.get_by_role("button", name="Scale", exact=True).click()
        expect(page.locator("#toast")).to_contain_text("~ web scale")
        expect(row.locator(".ready-count")).to_have_text("3/3")
        expect(row.locator(".notes")).to_contain_text("3 workers (set manually; the config says 2)")
        assert "3/3" in daemon.cli("status").stdout
        expect(page.locator("#last-act-summary")).to_contain_text("scale of web, just now")
        expect(page.locator("#lines")).to_contain_text("[web 2] worker ready")
        shot(page, "page", whole=False)


def test_charts_show_what_was_before_the_page_was_opened(servd: Servd, page: Page) -> None:
    daemon = servd(GRAPH, main_py=PLAIN).ready()
    with load(daemon):
        wait_for_history(daemon)
    with shown(page, daemon) as url:
        page.goto(url)
        row = page.locator("[data-service=web]")
        expect(row.locator(".rps-chart .peak")).to_have_text(re.compile(r"^max [1-9][\d.,]*/s$"))
        expect(row.locator(".p99-chart .peak")).to_have_text(re.compile(r"^max [\d.,]+ ms$"))
        expect(row.locator(".rps-chart canvas")).to_have_attribute(
            "aria-label", re.compile(r"^Requests per second of the last 10 minutes, at most [1-9]")
        )
        wait_until(lambda: row.locator(".rps-chart canvas").evaluate(DRAWN), "it is drawn")
        row.get_by_role("button", name="Details of web").click()
        expect(row.locator(".top-label").first).to_have_text(re.compile(r"^[\d,]+ requests/s$"))
        wait_until(lambda: row.locator(".plot canvas").first.evaluate(DRAWN), "it is drawn")
        expect(row.locator(".details tbody tr")).to_have_count(2)
        shot(page, "page-details", whole=False)


def test_problems_come_first_and_are_named(servd: Servd, page: Page) -> None:
    daemon = servd(GRAPH + LOOPS, main_py=FAILING, broken_py="raise RuntimeError('no model')")
    daemon.wait_for("crash loop")
    with shown(page, daemon) as url:
        page.goto(url)
        expect(page.locator("#state")).to_have_text("3 of 4 ready")
        expect(page).to_have_title("3 of 4 ready · servd")
        row = page.locator("[data-service=broken]")
        expect(row.locator(".state")).to_have_text("crash loop")
        expect(row.locator(".notes")).to_contain_text("no model")
        assert names(page) == ["broken", "ranker", "tokens", "web"]
        expect(page.locator("#lines .error").first).to_contain_text("error: [broken")
        expect(page.locator("#problems")).to_have_text("broken: crash loop")
        for _ in range(3):
            daemon.get("web", "/fail")
        row = page.locator("[data-service=web]")
        expect(row.locator(".number.errors")).to_have_text("100 %")
        expect(row.locator(".state")).to_have_text("ready, errors")
        expect(row.locator(".notes")).to_contain_text("5xx")
        expect(page.locator("#total-5xx")).to_have_text("100 % 5xx")
        expect(page.locator("[data-service]").nth(1)).to_have_attribute("data-service", "web")
        page.get_by_role("button", name="web: errors").click()
        expect(row.locator(".details")).to_contain_text("5xx")
        assert page.evaluate("document.activeElement.dataset.service") == "web"
        shot(page, "page-crash-loop", whole=False)


def test_rows_stay_where_they_are_under_the_pointer(servd: Servd, page: Page) -> None:
    daemon = servd(GRAPH, main_py=FAILING).ready()
    with shown(page, daemon) as url:
        page.goto(url)
        row = page.locator("[data-service=web]")
        row.hover()
        daemon.get("web", "/fail")
        expect(row.locator(".state")).to_have_text("ready, errors")
        assert names(page) == ["ranker", "tokens", "web"]
        page.locator("h1").hover()
        expect(page.locator("[data-service]").first).to_have_attribute("data-service", "web")


def test_activity_and_the_last_reload_are_on_the_first_screen(servd: Servd, page: Page) -> None:
    many = "".join(f'[services.s{number}]\ncommand = ["sleep", "1000"]\n' for number in range(20))
    daemon = servd(many).ready()
    daemon.reload(many + "workers = 2\n")
    with shown(page, daemon) as url:
        page.goto(url)
        expect(page.locator("#state")).to_have_text("20 of 20 ready")
        summary = page.locator("#last-reload-summary")
        expect(summary).to_have_text(
            re.compile(
                r"^applied (just now|\d+ s ago) \(\d\d:\d\d:\d\d\), triggered by the admin API$"
            )
        )
        expect(summary).to_be_in_viewport()
        expect(page.locator("#lines .line").last).to_be_in_viewport()
        for number in range(4):  # compact: a row each
            expect(page.locator("[data-service]").nth(number)).to_be_in_viewport()
        page.get_by_role("button", name="Last reload").click()
        expect(page.locator("#last-reload")).to_contain_text("~s19scale")
        page.get_by_role("button", name="Hide", exact=True).click()
        expect(page.locator("#dock-latest")).to_be_in_viewport()
        expect(page.locator("[data-service]").nth(19)).to_be_in_viewport()


def test_times_are_local(servd: Servd, browser: Browser) -> None:
    daemon = servd(web(1), main_py=PLAIN).ready()
    zone = "Asia/Kathmandu"
    context = browser.new_context(timezone_id=zone)
    page = context.new_page()
    with shown(page, daemon) as url:
        page.goto(url)
        line = page.locator("#lines .line", has_text="servd ready")
        time = line.locator("time")
        at = datetime.fromisoformat(time.get_attribute("datetime") or "")
        expect(time).to_have_text(f"{at.astimezone(ZoneInfo(zone)):%H:%M:%S}")
        expect(time).to_have_attribute("title", re.compile(rf"{at:%H:%M:%S} UTC$"))
        expect(line.locator(".ago")).to_have_text(re.compile(r"just now|\d+ s ago"))
    context.close()


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
        expect(page.locator("#last-reload-summary .badge")).to_have_text("rolled back")
        page.get_by_role("tab", name="Last reload").click()
        expect(page.locator("#last-reload")).to_contain_text('main has no attribute "nosuch"')
        assert daemon.get("web").text == "2"


def test_it_works_by_keyboard_alone(servd: Servd, page: Page) -> None:
    daemon = servd(GRAPH, main_py=PLAIN).ready()
    pids = daemon.pids("tokens")
    with shown(page, daemon) as url:
        page.goto(url)
        page.locator("#tab-table").focus()
        page.keyboard.press("ArrowRight")
        node = page.locator("[data-node=tokens]")
        expect(node).to_be_visible()
        for _ in range(20):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.dataset.node") == "tokens":
                break
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.dataset.service") == "tokens"
        for label in ("Details of tokens", "Restart tokens"):
            page.keyboard.press("Tab")
            assert page.evaluate("document.activeElement.ariaLabel") == label
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
        row = page.locator("[data-service=web]")
        expect(page.locator("#dock-latest")).to_contain_text("servd ready")
        expect(page.locator("#last-reload-summary")).to_be_in_viewport()
        row.get_by_role("button", name="Details of web").press("Enter")
        expect(row.locator("tbody tr")).to_have_count(2)
        expect(row.locator(".number.rps span")).to_have_text(re.compile(r"^[1-9]"))
        expect(row.get_by_role("button", name="Restart web")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        light = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert sum(map(int, re.findall(r"\d+", light)[:3])) < 150
        page.get_by_role("button", name="Show activity").click()
        expect(page.locator("#lines .line").last).to_be_in_viewport()
        shot(page, "page-phone", whole=False)


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


def test_logs_can_be_of_a_level(servd: Servd, page: Page) -> None:
    daemon = servd(GRAPH + LOOPS, main_py=PLAIN, broken_py="raise RuntimeError('no model')")
    daemon.wait_for("crash loop")
    with shown(page, daemon) as url:
        page.goto(url)
        page.get_by_role("tab", name="Logs").click()
        shown_lines = page.locator("#lines .line:visible")
        expect(shown_lines.filter(has_text="servd started")).to_have_count(1)
        page.get_by_label("Level").select_option("warning and above")
        expect(shown_lines.filter(has_text="warning: [broken")).not_to_have_count(0)
        expect(shown_lines.filter(has_text="servd started")).to_have_count(0)
        page.get_by_label("Level").select_option("error and above")
        expect(shown_lines.filter(has_text="warning: ")).to_have_count(0)
        loops = shown_lines.filter(has_text="crash loop")
        expect(loops.first).to_contain_text("error: [broken")


def test_it_goes_on_when_the_daemon_is_back(servd: Servd, page: Page) -> None:
    daemon = servd(web(1), main_py=PLAIN).ready()
    with shown(page, daemon) as url:
        page.goto(url)
        expect(page.locator("[data-service=web] .badge")).to_have_text("ready")
        daemon.stop()
        expect(page.locator("#notice")).to_contain_text("servd is not responding")
        expect(page.locator("#state")).to_have_text("not connected")
        again = servd.run(
            "--config", "servd.toml", environ={"SERVD_DAEMON__RUNTIME_DIR": str(daemon.runtime)}
        )
        wait_until(lambda: "servd ready" in again.output, "it runs again")
        expect(page.locator("#notice")).to_be_hidden()
        expect(page.locator("#daemon")).to_contain_text(f"pid {again.pid}")
        expect(page.locator("#lines")).to_contain_text("no longer available")


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
        expect(thief.locator("#notice")).to_contain_text("Run `servd dashboard`")
        assert thief.locator(".service").count() == 0
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
