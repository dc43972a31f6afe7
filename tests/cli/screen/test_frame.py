"""One screen of `servd top`, and where keys lead from it."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servd.cli.screen.frame import Frame, Screen
from servd.cli.screen.view import ORDERS, TopView

from support.statuses import NOW, command, down, exited, many, reload, service, status, worker

KEYS = (
    "up", "down", "pgup", "pgdn", "home", "end", "enter", " ", "left", "right", "*", "/", "esc",
    "?", "s", "S", "backspace", "ctrl-u", "ctrl-w", "a", "g", "G", "j", "k", *ORDERS,
)  # fmt: skip


class Top:
    """A person at `servd top`."""

    def __init__(self, shown: dict[str, Any], width: int = 80, height: int = 24) -> None:
        self.shown = shown
        self.size = width, height
        self.view = TopView()

    @property
    def frame(self) -> Frame:
        frame = Frame(self.shown, self.view, Screen(*self.size, NOW))
        self.view = frame.view
        return frame

    def press(self, *keys: str) -> Top:
        for key in keys:
            self.view = self.frame.after(key)
        return self

    @property
    def text(self) -> str:
        return "".join(f"{line.plain.rstrip()}\n" for line in self.frame.lines)

    @property
    def rows(self) -> list[str]:
        """The names of services that are visible."""
        return [line[2:].split()[0] for line in self.text.splitlines() if line[:2] in ("+ ", "- ")]


def test_a_screen_of_many_services() -> None:
    last = reload("rolled_back", "2026-03-04T11:59:00Z", error="web: worker 0 exited with status 1")
    shown = status(*many(30), last_reload=last)
    assert Top(shown, 80, 16).text == textwrap.dedent("""
        servd 0.1.0  24 of 29 ready  pid 7  up 3 min
        1 failed, 1 backoff, 1 with errors, 2 waiting, 1 task running
        120 req/s  75% 5xx  30 services  23 workers  CPU 34.5%  memory 805M
        last reload: rolled back 1 min ago  web: worker 0 exited with status 1
          SERVICE      STATE      READY   REQ/S  5XX%  P99 MS   CPU%    MEM  RESTARTS
        + migrate      failed      task  2 min ago
            worker 0 exited with status 3
        + ranker       backoff      0/1       0     -       -      -      -         4
            crash loop: worker 0 cannot import ranker: ModuleNotFoundError: No module n…
        + pay          ready        1/1     120    75    20.2    1.5    35M         0
            900 of 1200 requests lately were answered with 5xx
        + gateway      waiting      0/2       0     -       -      -      -         0
            waiting for search (waiting); cause: ranker (backoff)
        + search       waiting      0/1       0     -       -      -      -         0
            waiting for ranker (backoff)
        ? help  q quit  / filter  Enter details  s sort: problems  lines 1-10 of 35
        """).lstrip("\n")


def test_few_services_are_unfolded() -> None:
    assert Top(status(service("web", 2, listen=["http://h:1"])), 80, 10).text == textwrap.dedent("""
        servd 0.1.0  running  pid 7  up 3 min
        0 req/s  0% 5xx  1 service  2 workers  CPU 3%  memory 70M
          SERVICE  STATE      READY   REQ/S  5XX%  P99 MS   CPU%    MEM  RESTARTS
        - web      ready        2/2       0     -       -      3    70M         0
            http://h:1
            WORKER      PID  STATE          UP   REQ/S  5XX%  P99 MS   CPU%    MEM
                 0      100  ready       3 min       0     -       -    1.5    35M
                 1      101  ready       3 min       0     -       -    1.5    35M

        ? help  q quit  / filter  Enter details  s sort: problems
        """).lstrip("\n")


def test_a_narrow_screen_keeps_name_state_and_readiness() -> None:
    lines = Top(status(*many(12)), 30, 12).text.splitlines()
    assert lines[0] == "servd 0.1.0  6 of 11 ready"
    assert lines[3].split() == ["SERVICE", "STATE", "READY"]
    assert all(len(line) <= 30 for line in lines)
    assert Top(status(*many(12)), 16, 12).text.startswith("6 of 11 ready\n")


def test_arrows_move_from_service_to_service_and_the_list_follows() -> None:
    top = Top(status(*many(30)), 80, 12)
    assert top.frame.view.selected == "migrate"
    assert top.press("down", "j").frame.view.selected == "pay"
    assert top.press("up", "k", "up").frame.view.selected == "migrate"
    top.press(*["down"] * 40)
    assert top.frame.view.selected == "off"
    assert top.rows[-1] == "off"
    assert top.press("home").rows[0] == "migrate"
    assert top.press("end").rows[-1] == "off"


def test_a_page_is_what_fits() -> None:
    top = Top(status(*many(30)), 80, 12)
    first = top.rows
    second = top.press("pgdn").rows
    assert first[-1] != second[0]
    assert not set(first) & set(second)
    assert top.frame.view.selected in second
    assert top.press("pgup").rows == first
    assert top.press(*["pgdn"] * 9).frame.view.selected == "off"
    assert top.press(*["pgup"] * 9).frame.view.selected == "migrate"


def test_details_are_shown_and_hidden() -> None:
    top = Top(status(*many(30)))
    assert "no route" not in top.text
    for show, hide in (("enter", " "), ("right", "left"), ("*", "*")):
        assert "| no route to db.internal" in top.press(show).text, show
        assert "no route" not in top.press(hide).text, hide


def test_long_details_are_scrolled_line_by_line() -> None:
    printed = [f"line {number}" for number in range(40)]
    broken = down("broken", "failed", error="it exited", last_exit=exited("it exited", *printed))
    top = Top(status(broken, service("zeta")), 80, 12)
    seen: set[str] = set()
    for _ in range(60):
        seen |= {line.strip() for line in top.text.splitlines()}
        top.press("down")
    assert {f"| {line}" for line in printed} <= seen
    assert top.frame.view.selected == "zeta"
    back: set[str] = set()
    for _ in range(60):
        back |= {line.strip() for line in top.text.splitlines()}
        top.press("up")
    assert {f"| {line}" for line in printed} <= back
    assert top.view.offset == 0


def test_a_filter_narrows_the_list_as_it_is_typed() -> None:
    top = Top(status(*many(30)))
    top.press("/", *"consumer-1")
    assert top.rows == ["consumer-1", *(f"consumer-{number}" for number in range(10, 20))]
    assert top.text.splitlines()[-1] == "/consumer-1"
    top.press("5", "enter")
    assert top.rows == ["consumer-15"]
    assert top.text.splitlines()[-1] == "filter: consumer-15 (1 of 30)  Esc clear  q quit"
    top.press("/", "ctrl-u", *"TASK fail", "enter")
    assert top.rows == ["migrate"]
    assert "no service matches the filter" in top.press("/", "x", "enter").text
    assert len(top.press("down", "enter", "esc").rows) > 5


@pytest.mark.parametrize(
    ("key", "first"), [("r", "busy"), ("e", "failing"), ("l", "slow"), ("c", "hot"), ("m", "big"),
                       ("n", "big"), ("o", "slow"), ("p", "down")],
)  # fmt: skip
def test_a_key_sorts(key: str, first: str) -> None:
    services = [
        service("slow", p99_ms=900.0, rps=1.0, error_rate=0.0),
        service("failing", p99_ms=1.0, rps=2.0, error_rate=0.1),
        service("busy", p99_ms=2.0, rps=100.0, error_rate=0.0),
        service("hot", processes=[worker(cpu_percent=99.0)]),
        service("big", processes=[worker(rss_bytes=2**33)]),
        down("down", "failed"),
        command("other"),
    ]
    top = Top(status(*services)).press(key)
    assert top.rows[0] == first
    assert top.frame.view.selected == first
    assert f"sort: {ORDERS[key].name}" in top.text
    assert top.press("s", "S").view.order == key


def test_the_selection_stays_on_its_service_when_the_order_changes() -> None:
    services = many(30)
    top = Top(status(*services), 80, 12).press("down", "down")
    assert top.frame.view.selected == "pay"
    worse = [{**s, "state": "failed"} if s["name"].startswith("consumer") else s for s in services]
    top.shown = status(*worse)
    assert top.frame.view.selected == "pay"
    assert "pay" in top.rows
    top.shown = status(*[s for s in services if s["name"] != "pay"])
    assert top.frame.view.selected == "migrate"


def test_help_is_shown_until_a_key() -> None:
    top = Top(status(service("web")))
    assert "show or hide the details of all" in top.press("?").text
    assert "SERVICE" in top.press("q").text
    narrow = Top(status(service("web")), 30, 60).press("?").text
    assert all(len(line) <= 30 for line in narrow.splitlines())
    assert "quit" in narrow


def test_a_daemon_that_is_gone_is_said_above_its_last_status() -> None:
    frame = Frame(status(service("web")), TopView(), Screen(80, 24, NOW), "servd is not running")
    assert frame.lines[1].plain == "servd is not running"
    assert any("web" in line.plain for line in frame.lines)


def test_without_a_terminal_everything_is_shown() -> None:
    lines = Frame(status(*many(30)), TopView(), Screen(80, None, NOW)).lines
    shown = [line.plain for line in lines]
    assert all(any(line.startswith(s["name"]) for line in shown) for s in many(30))
    assert "help" not in shown[-1]


@settings(deadline=None)
@given(
    st.integers(1, 130), st.integers(1, 40), st.integers(0, 40),
    st.lists(st.sampled_from(KEYS), max_size=25),
)  # fmt: skip
def test_every_screen_has_its_size(width: int, height: int, count: int, keys: list[str]) -> None:
    top = Top(status(*many(40)[:count]), width, height)
    for key in keys:
        lines = top.press(key).frame.lines
        assert len(lines) == height
        assert max(line.width for line in lines) <= width
