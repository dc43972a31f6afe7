"""The port of `servd dashboard`: only the page that was opened with its address has access."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from support.apps import PLAIN, web
from support.dashboard import dashboard
from support.harness import DEADLINE, Servd


@pytest.fixture
def opened(servd: Servd) -> Iterator[tuple[httpx.Client, str]]:
    """A client of the port, and the one-time token."""
    daemon = servd(web(1), main_py=PLAIN).ready()
    with dashboard(daemon) as url:
        split = urlsplit(url)
        with httpx.Client(base_url=f"http://{split.netloc}", timeout=DEADLINE) as client:
            yield client, split.fragment


def session(client: httpx.Client, once: str) -> dict[str, str]:
    token = client.post("/session", content=once).json()["token"]
    return {"authorization": f"Bearer {token}"}


def test_only_the_page_itself_is_for_everybody(opened: tuple[httpx.Client, str]) -> None:
    client, once = opened
    page = client.get("/")
    assert page.status_code == 200
    assert "<title>servd</title>" in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for route in ("/v1/status", "/metrics", "/openapi.json", "/livez"):
        assert client.get(route).status_code == 401
        shown = {"authorization": f"Bearer {once}"}
        assert client.get(route, headers=shown).status_code == 401, "it is for the exchange alone"
    assert client.post("/v1/reload").status_code == 401


def test_a_token_is_exchanged_once(opened: tuple[httpx.Client, str]) -> None:
    client, once = opened
    for wrong in ("", "x", once[:-1], "\u00e9" * 40):
        assert client.post("/session", content=wrong.encode()).status_code == 401
    shown = session(client, once)
    assert client.get("/v1/status", headers=shown).json()["state"] == "running"
    assert client.post("/session", content=once).status_code == 401
    assert client.get("/v1/status", headers=shown).status_code == 200


def test_what_the_daemon_answers_comes_through_as_it_is(opened: tuple[httpx.Client, str]) -> None:
    client, once = opened
    shown = session(client, once)
    tag = client.get("/v1/status", headers=shown).headers["etag"]
    answer = client.post(
        "/v1/services/web/scale", json={"workers": 1}, headers={**shown, "if-match": tag}
    )
    assert answer.json()["outcome"] == "applied"
    again = client.post(
        "/v1/services/web/scale", json={"workers": 2}, headers={**shown, "if-match": tag}
    )
    assert again.status_code == 412
    for route in ("/v1/services/nosuch", "//evil.example/", "/v1/services/%00%0a"):
        assert (
            client.get(
                client.base_url.join("/").copy_with(raw_path=route.encode()), headers=shown
            ).status_code
            == 404
        ), route
    lines = client.get("/v1/events?follow=false&service=web", headers=shown)
    assert lines.headers["content-type"].startswith("text/event-stream")
    assert "worker ready" in lines.text


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "localhost:1"},
        {"origin": "http://evil.example"},
        {"origin": "http://localhost:1"},
        {"origin": "null"},
    ],
)
def test_another_name_or_origin_is_refused(
    opened: tuple[httpx.Client, str], headers: dict[str, str]
) -> None:
    client, once = opened
    assert client.post("/session", content=once, headers=headers).status_code in (403, 421)
    shown = session(client, once)
    answer = client.get("/v1/status", headers={**shown, **headers})
    assert answer.status_code in (403, 421)


def test_a_taken_port_is_one_line(servd: Servd, tmp_path: Path) -> None:
    daemon = servd(web(1), main_py=PLAIN).ready()
    with dashboard(daemon) as url:
        port = str(urlsplit(url).port)
        done = daemon.cli("dashboard", "--no-browser", "--port", port)
    assert done.returncode == 1
    assert done.stderr == f"servd: cannot listen on 127.0.0.1:{port}: Address already in use\n"
