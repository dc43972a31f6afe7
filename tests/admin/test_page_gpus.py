"""GPUs on the page, in a real browser."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page, expect

from support.browser import IN_A_BROWSER, shown
from support.gpus import GIB, FakeGpus
from support.harness import Servd

pytestmark = IN_A_BROWSER

CONFIG = """
    [services.llm]
    command = ["sleep", "1000"]
    gpus = 1
    workers = 2

    [services.plain]
    command = ["sleep", "1000"]
"""


def test_the_details_of_a_service_show_its_gpus(servd: Servd, page: Page, tmp_path: Path) -> None:
    gpus = FakeGpus(tmp_path / "gpus.json", 2)
    daemon = servd(CONFIG, environ=gpus.environ).ready()
    for number, pid in enumerate(daemon.pids("llm")):
        gpus.allocate(str(number), pid, (number + 1) * 10 * GIB)
    with shown(page, daemon) as url:
        page.goto(url)
        page.get_by_role("button", name="Details of llm").click()
        details = page.locator("[data-service=llm] .details")
        expect(details.locator("dd", has_text="0, 1: 30 GiB")).to_be_visible()
        expect(details.locator("th", has_text="GPU")).to_be_visible()
        expect(details.locator("td", has_text="1: 20 GiB")).to_be_visible()
        page.get_by_role("button", name="Details of plain").click()
        plain = page.locator("[data-service=plain] .details")
        expect(plain.locator("th", has_text="PID")).to_be_visible()
        expect(plain.locator("th", has_text="GPU")).to_have_count(0)
        expect(plain.locator("dt", has_text="GPU")).to_be_hidden()
