"""Pages in a real browser: headless Chromium."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page

from support.dashboard import dashboard
from support.harness import ServdProcess

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
IN_A_BROWSER = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium"),
]
"""The marks of tests that use a browser."""

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
