"""A browser, and its pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from support.browser import CHROMIUM, OPTIONS
from support.harness import DEADLINE


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
    """What the browser says of answers that tell the page something is wrong, and of streams that
    end with their daemon.
    """
    return "status of" in text or "ERR_INCOMPLETE_CHUNKED_ENCODING" in text
